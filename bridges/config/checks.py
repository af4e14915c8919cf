"""Checks of single settings; each message names the key as it is written on the command line."""

from __future__ import annotations

import math
from typing import Any

from bridges.errors import ConfigError

# A file system takes names of 255 bytes; what is written beside a folder while it is made has a longer one.
MAX_NAME_BYTES = 200
# PyTorch, NumPy and the tables' 64-bit columns all take a seed and the small offsets that parts add to it.
MAX_SEED = 2**31 - 1
_MAX_INT = 2**63 - 1
# Bytes that file systems take in one name and the operating system in a whole path.
_MAX_PART, _MAX_PATH = 255, 4095


def positive(key: str, value: float | None) -> None:
    """A `ConfigError` unless the value is above 0; None passes."""
    if value is not None and not value > 0:
        raise ConfigError(f"{key}={value} must be greater than 0.")
    sound(key, value)


def between(key: str, value: float, low: float, high: float) -> None:
    """A `ConfigError` unless the value lies in the closed interval."""
    if not low <= value <= high:
        raise ConfigError(f"{key}={value} must lie between {low} and {high}.")


def sound(key: str, value: Any) -> None:
    """A `ConfigError` where a value can be meant by nobody: no finite number, an empty text, one that is no Unicode."""
    if isinstance(value, (list, tuple)):
        for entry in value:
            sound(key, entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            sound(key, name)
            sound(f"{key}.{name}", entry)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} must be a finite number.")
    elif isinstance(value, int) and abs(value) > _MAX_INT:
        # The number itself may have more digits than Python writes out.
        raise ConfigError(f"{key} is too large or too small a number: at most {_MAX_INT} either way.")
    elif isinstance(value, str):
        if not value.strip():
            raise ConfigError(f"{key} is empty: was a shell variable not set? Leave {key} out for its default.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{key}={value!a} holds bytes that are no UTF-8.") from None
        if any(ord(c) < 32 for c in value):
            raise ConfigError(f"{key}={value!r} holds a control character.")


def file_name(key: str, value: str) -> None:
    """A `ConfigError` unless the value can be the name of a folder inside another one."""
    sound(key, value)
    if "/" in value or "\\" in value or value.startswith(".") or value != value.strip():
        raise ConfigError(
            f"{key}={value!r} must be a plain name: no path, no dot in front, no space around it. Where the folder is "
            "made is set with runs_dir=…."
        )
    if len(value.encode()) > MAX_NAME_BYTES:
        raise ConfigError(f"{key} has {len(value.encode())} bytes; file systems allow {MAX_NAME_BYTES} here.")


def path(key: str, value: str | None) -> None:
    """A `ConfigError` where a path is longer than file systems allow, as is all text that is given in its place."""
    if value is None:
        return
    part = max(value.split("/"), key=lambda name: len(name.encode()))
    for text, most, what in ((part, _MAX_PART, "a name"), (value, _MAX_PATH, "a path")):
        if (size := len(text.encode())) > most:
            raise ConfigError(f"{key} holds {what} of {size} bytes ({text[:20]}…); file systems allow {most}.")


def length(key: str, value: str, most: int, service: str) -> None:
    """A `ConfigError` where a text is longer than a service takes."""
    if len(value) > most:
        raise ConfigError(f"{key} has {len(value)} characters; {service} takes {most} at most.")
