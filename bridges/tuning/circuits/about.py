"""What a study is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.config.search import CircuitSettings
from bridges.stack import ResidualStack
from bridges.tuning.circuits.ranges import RANGES
from bridges.version import __version__


def about_of(
    stack: ResidualStack,
    tasks: Mapping[str, EncodedPairs],
    reference: Mapping[str, Tensor],
    settings: CircuitSettings,
    seed: int,
    model: str,
    text: Tensor | None,
) -> dict[str, Any]:
    """What must be the same for values of trials to be comparable."""
    fixed = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in RANGES}
    pairs = {name: _digest([e.ids, e.lengths, e.candidates]) for name, e in tasks.items()}
    weights = [p for _, p in stack.named_parameters()]  # type: ignore[attr-defined]
    means = [reference[point] for point in stack.nodes.widths]
    rest = {"seed": seed, "model": model, "weights": _digest(weights), "reference": _digest(means)}
    rest["text"] = None if text is None else _digest([text])
    rest["version of Bridges"] = __version__
    return fixed | rest | {"behaviours": list(tasks), "training pairs": pairs}


def _digest(tensors: Sequence[Tensor]) -> str:
    seen = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
