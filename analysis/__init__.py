"""Tables over many runs: ``analysis.load("runs").table("sites")``."""

from .load import Runs, load

__all__ = ["Runs", "load"]
