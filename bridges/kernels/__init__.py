"""CPU kernels in C++ behind the operations of the sparse transformer: same results, less time.

They are compiled on first use where g++ is found; without it everything runs in plain PyTorch. ``select`` chooses, and
so does the environment variable ``BRIDGES_KERNELS``.
"""

from __future__ import annotations

import logging
import os

from bridges.config.literals import KERNELS, one_of
from bridges.errors import BridgesError
from bridges.kernels.build import KernelsUnavailable, library

log = logging.getLogger(__name__)

_chosen: str | None = None


def select(name: str = "auto") -> str:
    """Choose the kernels of this process.

    Args:
        name: ``cpp``, ``python`` (plain PyTorch) or ``auto``: as ``BRIDGES_KERNELS`` says, else C++ where it works.

    Returns:
        ``cpp`` or ``python``, what is used from now on.

    Raises:
        BridgesError: ``cpp`` was asked for and cannot be had.
    """
    global _chosen
    if one_of("kernels", name, KERNELS) == "auto":
        name = one_of("BRIDGES_KERNELS", os.environ.get("BRIDGES_KERNELS", "auto"), KERNELS)
    if name != "python":
        try:
            library()
            name = "cpp"
        except KernelsUnavailable as error:
            if name == "cpp":
                raise BridgesError(f"kernels=cpp: {error}. Use kernels=auto or python.") from error
            log.info("The C++ kernels are not used: %s. Plain PyTorch runs instead, slower.", error)
            name = "python"
    _chosen = name
    return name


def active() -> bool:
    """Whether the C++ kernels are in use; the first question settles it."""
    if _chosen is None:
        select()
    return _chosen == "cpp"
