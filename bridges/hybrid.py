"""Mixed forward passes: a path through two stacks with a bridge between each two segments.

A path is written ``D0-S3-D8``: dense from its start, across bridge 3 into the sparse stack, across bridge 8 back into
the dense one, whose unembedding gives the logits. Numbers are indices of bridges (site pairs), not of sites.

At the leading positions that are the same in every sequence (`Bridges.constant_prefix`) nothing is translated: what is
crossed into has its own stream there, with the massive activations that attention of pretrained models falls back on.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.bridge import Bridges
from bridges.errors import BridgesError
from bridges.stack import ResidualStack


@dataclass(frozen=True)
class Path:
    """Segments of a mixed pass.

    Attributes:
        first: the stack it begins in, ``"D"`` or ``"S"``.
        crossings: indices of the bridges crossed, in order, not falling.
    """

    first: str
    crossings: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rising = list(self.crossings) == sorted(self.crossings) and all(c >= 0 for c in self.crossings)
        if self.first not in ("D", "S") or not rising:
            shown = str(self) if self.first in ("D", "S") else repr(self)
            raise BridgesError(f"{shown} is no path: it begins with D or S and its crossings never fall.")

    @classmethod
    def parse(cls, text: str) -> Path:
        """``"D0-S3-D8"`` to a path."""
        segments = re.findall(r"([DS])(\d+)", text)
        if "-".join(a + b for a, b in segments) != text or not segments or segments[0][1] != "0":
            raise BridgesError(f"{text!r} is no path. Write stack letters with bridge numbers, such as D0-S3-D8.")
        if any(a == b for (a, _), (b, _) in itertools.pairwise(segments)):
            raise BridgesError(f"{text!r} is no path: two neighbouring segments lie in the same stack.")
        return cls(segments[0][0], tuple(int(n) for _, n in segments[1:]))

    @property
    def stacks(self) -> str:
        """The stack letter of each segment, such as ``"DSD"``."""
        other = {"D": "S", "S": "D"}
        return "".join(self.first if i % 2 == 0 else other[self.first] for i in range(len(self.crossings) + 1))

    @property
    def kind(self) -> str:
        """A name for paths of the same shape, as in the ``paths`` table."""
        names = {"D": "pure_dense", "S": "pure_sparse", "DS": "single_d2s", "SD": "single_s2d"}
        if self.stacks in names:
            return names[self.stacks]
        if len(self.crossings) == 2 and self.crossings[0] == self.crossings[1]:
            return "round_trip_dense" if self.first == "D" else "round_trip_sparse"
        return {"DSD": "double_dsd", "SDS": "double_sds"}.get(self.stacks, "mixed")

    def __str__(self) -> str:
        return "-".join(f"{s}{n}" for s, n in zip(self.stacks, (0, *self.crossings), strict=True))


def prefix_streams(stack: ResidualStack, ids: Tensor, length: int) -> dict[int, Tensor]:
    """A stack's own stream at every site over the first ``length`` positions, ``[B or 1, length, d]``.

    Attention is causal: nothing behind these positions is needed, and where all sequences begin alike, one is enough.

    Args:
        ids: ``[B, T]``.
        length: `Bridges.constant_prefix`; at 0 there is nothing to do, and the answer is empty.
    """
    if not length:
        return {}
    start = ids[:, :length]
    return stack.run(start[:1] if bool((start == start[:1]).all()) else start).sites


def keep_prefix(crossed: Tensor, own: Tensor | None, length: int | None = None) -> Tensor:
    """A crossed stream ``[B, T, d]`` with the receiving stack's own at the leading positions.

    Args:
        own: that stream at the same site, ``[B or 1, length or more, d]``; None leaves everything as it is.
        length: how many positions; None for all of ``own``.
    """
    if own is None or length == 0:
        return crossed
    own = own[:, :length].to(crossed.dtype)
    return torch.cat([own.expand(len(crossed), -1, -1), crossed[:, own.shape[1] :]], dim=1)


def run_path(path: Path, dense: ResidualStack, sparse: ResidualStack, bridges: Bridges, ids: Tensor) -> Tensor:
    """The stream at the end of a path, ``[B, T, d]`` of the stack the path ends in.

    Args:
        path: its crossings are indices into ``bridges``.
        ids: ``[B, T]``.
    """
    if path.crossings and path.crossings[-1] >= len(bridges):
        raise BridgesError(
            f"Path {path} crosses bridge {path.crossings[-1]}; there are the bridges 0 to {len(bridges) - 1}."
        )
    stack = dense if path.first == "D" else sparse
    h, site = stack.embed(ids), 0
    own: dict[str, Mapping[int, Tensor]] = {
        letter: prefix_streams(into, ids, bridges.constant_prefix)
        for letter, into in (("D", dense), ("S", sparse))
        if letter in path.stacks[1:]
    }
    for crossing, letter in zip(path.crossings, path.stacks, strict=False):
        pair, bridge = bridges.pairs[crossing], bridges[crossing]
        if letter == "D":
            h = bridge.encode(stack.run_segment(h, site, pair.dense))
            stack, site = sparse, pair.sparse
        else:
            h = bridge.decode(stack.run_segment(h, site, pair.sparse))
            stack, site = dense, pair.dense
        h = keep_prefix(h, own["S" if letter == "D" else "D"].get(site))
    return stack.run_segment(h, site, stack.n_sublayers)


def path_logits(path: Path, dense: ResidualStack, sparse: ResidualStack, bridges: Bridges, ids: Tensor) -> Tensor:
    """The logits at the end of a path, ``[B, T, V]``."""
    return (dense if path.stacks[-1] == "D" else sparse).unembed(run_path(path, dense, sparse, bridges, ids), ids)


def all_paths(n_bridges: int, limit: int | None = None, seed: int = 0) -> list[Path]:
    """Pure, single-crossing, same-site round-trip and two-crossing paths, the last ones sampled down to ``limit``.

    Args:
        n_bridges: number of bridges.
        limit: two-crossing paths that are kept at most, drawn at random; None for all.
        seed: of the draw.
    """
    sites = range(n_bridges)
    paths = [Path("D"), Path("S")]
    paths += [Path(first, (i,)) for first in "DS" for i in sites]
    paths += [Path(first, (i, i)) for first in "DS" for i in sites]
    doubles = [Path(first, pair) for first in "DS" for pair in itertools.combinations(sites, 2)]
    if limit is not None and len(doubles) > limit:
        kept = set(random.Random(seed).sample(range(len(doubles)), limit))
        doubles = [path for i, path in enumerate(doubles) if i in kept]
    return paths + doubles
