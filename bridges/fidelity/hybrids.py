"""Measuring hybrids on held-out text: the ``sites`` and ``paths`` tables.

Figures of finished and of unfinished training come from these functions, with training's number format and switches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bridges.bridge import Bridges
from bridges.data.blocks import Text, in_batches
from bridges.hybrid import Path, keep_prefix, prefix_streams
from bridges.losses import Reference, head_values, kl_from_reference, per_token_nmse
from bridges.stack import ResidualStack

CPU = torch.device("cpu")


def bootstrap_interval(per_sequence: np.ndarray, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean over sequences and its 95 % percentile interval.

    Args:
        per_sequence: one value per sequence, ``[n]``.
        resamples: bootstrap draws of the sequences.
        seed: of the draws; the same for every figure, so that two rows are compared on the same resamples.
    """
    rng = np.random.default_rng(seed)
    means = per_sequence[rng.integers(0, len(per_sequence), (resamples, len(per_sequence)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(per_sequence.mean()), float(low), float(high)


def _ends(
    paths: Sequence[Path], dense: ResidualStack, sparse: ResidualStack, bridges: Bridges, ids: Tensor
) -> dict[Path, Tensor]:
    """The last stream of every path; what paths share, the segments before a crossing, is computed once."""
    stacks = {"D": dense, "S": sparse}
    own = {letter: prefix_streams(stack, ids, bridges.constant_prefix) for letter, stack in stacks.items()}
    site_of = {"D": [p.dense for p in bridges.pairs], "S": [p.sparse for p in bridges.pairs]}
    # Streams of every prefix of a path at every site of the stack it is in, level by level.
    level: dict[Path, dict[int, Tensor]] = {}
    ends: dict[Path, Tensor] = {}
    wanted = {Path(p.first, p.crossings[:n]) for p in paths for n in range(len(p.crossings) + 1)}
    for depth in range(max(len(p.crossings) for p in paths) + 1):
        found: dict[Path, dict[int, Tensor]] = {}
        for path in sorted((p for p in wanted if len(p.crossings) == depth), key=str):
            letter = path.stacks[-1]
            stack = stacks[letter]
            if depth == 0:
                start, h = 0, stack.embed(ids)
            else:
                crossing = path.crossings[-1]
                before = level[Path(path.first, path.crossings[:-1])]
                other = path.stacks[-2]
                source = before[site_of[other][crossing]]
                bridge = bridges[crossing]
                h = bridge.encode(source) if letter == "S" else bridge.decode(source)
                start = site_of[letter][crossing]
                h = keep_prefix(h, own[letter].get(start))
            deeper = any(
                len(p.crossings) > depth and p.first == path.first and p.crossings[:depth] == path.crossings
                for p in wanted
            )
            streams = stack.run_from([(start, h)], record=0 if deeper else None)
            found[path] = streams.sites
            ends[path] = streams.final[0]
        level = found
    return {path: ends[path] for path in paths}


@torch.no_grad()
def measure_paths(
    paths: Sequence[Path],
    dense: ResidualStack,
    sparse: ResidualStack,
    bridges: Bridges,
    ids: Text,
    *,
    batch: int,
    bootstrap: int,
    seed: int,
    split: str,
    label: str,
    autocast: AbstractContextManager | None = None,
    device: torch.device = CPU,
) -> pd.DataFrame:
    """Cross-entropy and exact KL(dense ‖ path) of every path, with 95 % intervals over sequences.

    Args:
        ids: held-out sequences ``[n, T]``, or batches of such where they differ in length.
        label: what the ``bridges`` column says: ``trained``, ``untrained`` or ``ridge``.

    Returns:
        rows of the ``paths`` table.
    """
    ce: dict[Path, list[Tensor]] = {p: [] for p in paths}
    kl: dict[Path, list[Tensor]] = {p: [] for p in paths}
    for chunk in in_batches(ids, batch):
        chunk = chunk.to(device)
        with autocast or nullcontext():
            reference = Reference(dense, dense.run_segment(dense.embed(chunk), 0, dense.n_sublayers))
            ends = _ends(paths, dense, sparse, bridges, chunk)
            for letter, stack in (("D", dense), ("S", sparse)):
                group = [p for p in paths if p.stacks[-1] == letter]
                for at in range(0, len(group), 8):
                    some = group[at : at + 8]
                    values = head_values(stack, [ends[p] for p in some], chunk, reference)
                    for i, path in enumerate(some):
                        ce[path].append(values.ce[i].mean(1).cpu())
                        assert values.kl is not None
                        kl[path].append(values.kl[i].mean(1).cpu())
    rows = []
    for path in paths:
        row = {"bridges": label, "path": str(path), "kind": path.kind, "crossings": len(path.crossings)}
        rows.append(row | _intervals(torch.cat(ce[path]), torch.cat(kl[path]), bootstrap, seed))
    return _finish(rows, ids, split)


def _intervals(ce: Tensor, kl: Tensor, bootstrap: int, seed: int) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, values in (("ce", ce), ("kl", kl)):
        out[name], out[f"{name}_low"], out[f"{name}_high"] = bootstrap_interval(
            values.double().numpy(), bootstrap, seed
        )
    return out


def _finish(rows: list[dict], ids: Text, split: str) -> pd.DataFrame:
    frame, batches = pd.DataFrame(rows), in_batches(ids, 1)
    frame["n_sequences"], frame["n_tokens"] = len(batches), sum(batch.numel() for batch in batches)
    frame["split"] = split
    return frame


@torch.no_grad()
def measure_table(
    table: Tensor,
    dense: ResidualStack,
    ids: Text,
    *,
    batch: int,
    bootstrap: int,
    seed: int,
    split: str,
    device: torch.device = CPU,
) -> pd.DataFrame:
    """The bigram-only baseline as one row of the ``paths`` table.

    Args:
        table: log P(next | current), ``[V, V]``.
    """
    table = table.to(device)
    ce, kl = [], []
    for chunk in in_batches(ids, batch):
        chunk = chunk.to(device)
        for row in chunk.split(1):
            logp = table[row]
            reference = dense.logits(row).float().log_softmax(-1)
            ce.append(-logp[:, :-1].gather(-1, row[:, 1:, None]).squeeze(-1).mean(1).cpu())
            kl.append(kl_from_reference(reference, logp).mean(1).cpu())
    row = {"bridges": "none", "path": "bigram", "kind": "bigram", "crossings": 0}
    return _finish([row | _intervals(torch.cat(ce), torch.cat(kl), bootstrap, seed)], ids, split)


@torch.no_grad()
def bridge_errors(
    dense: ResidualStack,
    sparse: ResidualStack,
    bridges: Bridges,
    ids: Text,
    *,
    batch: int,
    autocast: AbstractContextManager | None = None,
    device: torch.device = CPU,
) -> pd.DataFrame:
    """NMSE and FVU of every encoder and decoder, one row per bridge.

    NMSE is the training loss's definition: a token's squared error over its squared deviation from the mean, averaged
    over tokens. FVU is the ratio of the squared errors' sum to that of the deviations from these texts' own mean. The
    constant prefix counts in neither.
    """
    sums: dict[tuple[int, str], list[Tensor]] = {}
    start = bridges.constant_prefix
    chunks = [chunk.to(device) for chunk in in_batches(ids, batch)]
    with autocast or nullcontext():
        means = [_site_means(stack, chunks, start) for stack in (dense, sparse)]
        for chunk in chunks:
            h_dense, h_sparse = dense.run(chunk).sites, sparse.run(chunk).sites
            for i, pair in enumerate(bridges.pairs):
                x, y = h_dense[pair.dense][:, start:].float(), h_sparse[pair.sparse][:, start:].float()
                for name, estimate, target, mean in (
                    ("encoder", bridges[i].encode(x), y, means[1][pair.sparse]),
                    ("decoder", bridges[i].decode(y), x, means[0][pair.dense]),
                ):
                    centre = mean if name == "encoder" else bridges[i].text_moments(mean, mean.new_zeros(()))[0]
                    parts = (estimate - target, target - mean, target - centre)
                    lengths = torch.stack([part.double().square().sum(-1).flatten() for part in parts])
                    sums.setdefault((i, name), []).append(lengths)
    rows = []
    for i, pair in enumerate(bridges.pairs):
        row: dict[str, float] = {"bridge": i, "dense_site": pair.dense, "sparse_site": pair.sparse}
        for name in ("encoder", "decoder"):
            error, deviation, from_centre = torch.cat(sums[i, name], dim=1)
            variance = deviation.mean()
            if name == "decoder":
                variance = bridges[i].text_moments(variance, variance)[1]
            row[f"nmse_{name}"] = float(per_token_nmse(error, from_centre, variance).mean())
            row[f"fvu_{name}"] = float(error.sum() / deviation.sum())
        rows.append(row)
    return pd.DataFrame(rows)


def _site_means(stack: ResidualStack, chunks: list[Tensor], start: int) -> dict[int, Tensor]:
    totals: dict[int, Tensor] = {}
    for chunk in chunks:
        for site, h in stack.run(chunk).sites.items():
            totals[site] = totals.get(site, 0) + h[:, start:].float().mean((0, 1)) * len(chunk)
    return {site: total / sum(len(c) for c in chunks) for site, total in totals.items()}


def site_table(errors: pd.DataFrame, paths: pd.DataFrame, label: str) -> pd.DataFrame:
    """The ``sites`` table of one set of bridges, from `bridge_errors` and the single crossings of `measure_paths`."""
    frame = errors.copy()
    frame.insert(0, "bridges", label)
    by_path = paths[paths["bridges"] == label].set_index("path")
    for direction, first, second in (("d2s", "D", "S"), ("s2d", "S", "D")):
        rows = by_path.loc[[f"{first}0-{second}{i}" for i in errors["bridge"]]]
        for suffix in ("", "_low", "_high"):
            frame[f"kl_{direction}{suffix}"] = rows[f"kl{suffix}"].to_numpy()
    frame["n_sequences"] = by_path["n_sequences"].iloc[0]
    frame["split"] = by_path["split"].iloc[0]
    return frame
