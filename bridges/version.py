"""The version of Bridges."""

__version__ = "0.1.0"
