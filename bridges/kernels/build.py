"""Compiling the C++ kernels on first use, and keeping them per user, machine and version."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = (
    "abs_topk.cpp",
    "attention.cpp",
    "choose.cpp",
    "gelu.cpp",
    "head.cpp",
    "norm.cpp",
    "sparse.cpp",
    "tiles.cpp",
    "transpose.cpp",
)
HEADERS = ("wide.h", "vector.h", "half.h", "turn.h", "tiles.h")
_X86 = platform.machine() in ("x86_64", "AMD64")
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC"),
    # Other processors' compilers do not know this one.
    *(("-mprefer-vector-width=512",) if _X86 else ()),
)


class KernelsUnavailable(Exception):
    """The kernels cannot be built or loaded here; the message says why."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$BRIDGES_CACHE``, or ``bridges`` in the user's cache folder."""
    own = os.environ.get("BRIDGES_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "bridges"


def _processor() -> str:
    """What -march=native depends on, so that a cache on a shared disk serves every machine with its own."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _source_folder() -> Path:
    return Path(str(files("bridges.kernels")))


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels, built if need be.

    Raises:
        KernelsUnavailable: there is no compiler, it failed, or the result cannot be loaded.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise KernelsUnavailable("there is no g++")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelsUnavailable(f"{compiler} does not run ({error})") from error
    folder = _source_folder()
    digest = hashlib.sha256()
    for part in (version, _processor(), " ".join(FLAGS), *((folder / n).read_text() for n in (*SOURCES, *HEADERS))):
        digest.update(part.encode())
    target = cache_folder() / f"kernels-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        _compile(compiler, folder, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise KernelsUnavailable(f"{target} cannot be loaded ({error}); delete it to build it again") from error


def _compile(compiler: str, folder: Path, target: Path) -> None:
    log.info("Compiling the CPU kernels, once on this machine …")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when whole, so that processes that start together never load half a file.
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            out = Path(scratch) / target.name
            command = [compiler, *FLAGS, *(str(folder / name) for name in SOURCES), "-o", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise KernelsUnavailable(f"{compiler} failed: {done.stderr.strip()[-400:]}")
            os.replace(out, target)
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelsUnavailable(f"they cannot be compiled into {target.parent} ({error})") from error
