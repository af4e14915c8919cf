"""Memory allocator settings that must be in place before the process starts.

glibc hands every large tensor back to the kernel when it is freed and asks for it again a moment later; page
faults then cost more than the arithmetic. Kept memory and huge pages must be asked for in the environment of a new
process, so the command line starts itself once more with them. This module imports nothing heavy.
"""

from __future__ import annotations

import os
import platform
import sys

SWITCH = "BRIDGES_ALLOCATOR"
SETTINGS = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": ":".join(
        [
            "glibc.malloc.arena_max=1",
            "glibc.malloc.mmap_threshold=4294967296",
            "glibc.malloc.trim_threshold=8589934592",
            "glibc.malloc.hugetlb=1",
        ]
    ),
}


def tune_allocator() -> None:
    """Replace this process by the same command with the settings, on Linux with glibc and only once.

    ``BRIDGES_ALLOCATOR=off`` leaves the process as it is; so do settings of these variables by the user.
    """
    if os.environ.get(SWITCH) or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    if any(name in os.environ for name in SETTINGS):
        return
    os.environ.update(SETTINGS)
    os.environ[SWITCH] = "tuned"
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print(f"Restarting with allocator settings for large tensors ({SWITCH}=off switches this off).", flush=True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
