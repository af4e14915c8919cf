"""Checks of single settings; each message names the key as it is written on the command line."""

from __future__ import annotations

from bridges.errors import ConfigError


def positive(key: str, value: float | None) -> None:
    """A `ConfigError` unless the value is above 0; None passes."""
    if value is not None and not value > 0:
        raise ConfigError(f"{key}={value} must be greater than 0.")


def between(key: str, value: float, low: float, high: float) -> None:
    """A `ConfigError` unless the value lies in the closed interval."""
    if not low <= value <= high:
        raise ConfigError(f"{key}={value} must lie between {low} and {high}.")
