"""Export of circuits for the MIB benchmark; it is defined in `bridges.interop.mib`."""

from __future__ import annotations

from bridges.interop.mib import mib_graph, save_mib

__all__ = ["mib_graph", "save_mib"]
