"""Where bridges stand: evenly over depth, or where the dense model moves what its behaviours depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import express
from bridges.bridge import SitePair, pair_sites
from bridges.circuits.bridge_context import (
    device_of,
    last_logits,
    on_other,
    share_moved,
    shared_positions,
)
from bridges.circuits.task import logit_diff_of, prompts
from bridges.config import Config
from bridges.errors import ConfigError
from bridges.stack import ResidualStack
from bridges.storage.tables import read_table, table_names, write_table

# The table that a profile is kept in.
PROFILE = "profile"
# Pairs of each behaviour, and sites of each at most, that it is measured with: it says roughly where.
PAIRS, SITES = 8, 24
# Share of the bridges that stand evenly over depth whatever the profile says.
EVEN = 0.35
# Tokens that are run at once.
_TOKENS = 4096


def placed_pairs(
    config: Config,
    folder: Path,
    dense: ResidualStack,
    tokenizer: PreTrainedTokenizerBase,
    behaviours: Mapping[str, Behaviour],
    n_sparse: int,
    write: bool,
    say: Callable[[str], None],
) -> list[SitePair]:
    """The sites that a run's bridges join; measured where ``bridge.place=ceiling``, and read where that was done.

    Args:
        folder: of the run, where the table ``profile`` is. n_sparse: sublayers of the sparse model.
        write: put the table there. say: told what was chosen.

    Raises:
        ConfigError: bridges are to stand where behaviours rise, and there are none.
    """
    every = config.bridge.every
    if config.bridge.place == "even":
        return pair_sites(dense.n_sublayers, n_sparse, every)
    if not behaviours:
        raise ConfigError(
            "bridge.place=ceiling needs behaviours to measure; with behaviours=none use bridge.place=even."
        )
    if PROFILE in table_names(folder):
        frame = read_table(folder, PROFILE)
    else:
        say("Measuring where the dense model moves what its behaviours depend on …")
        frame = profile_table(config, dense, tokenizer, behaviours)
        if write:
            write_table(folder, PROFILE, frame)
    profiles = {
        str(name): dict(zip(rows["dense_site"].astype(int), rows["share_moved"], strict=True))
        for name, rows in frame.groupby("behaviour", sort=False)
    }
    pairs = place_pairs(dense.n_sublayers, n_sparse, every, profiles)
    say(f"Bridges at the dense sites {', '.join(str(pair.dense) for pair in pairs)} of {dense.n_sublayers}.")
    return pairs


@torch.no_grad()
def ceiling_profile(dense: ResidualStack, pairs: EncodedPairs, sites: Sequence[int]) -> list[float]:
    """How far the dense model's own exchange at shared positions moves its logit difference, at each site.

    Args:
        pairs: of one behaviour. sites: dense sites, rising.

    Returns:
        `share_moved` at each site: 0 before the model has moved the cue to positions that both prompts share.
    """
    some = prompts(pairs, device_of(dense))
    streams = dense.run(some.ids)
    shared = shared_positions(some).unsqueeze(-1)
    plain = logit_diff_of(last_logits(dense, [streams.final[0]], some), some)[0]
    found: list[float] = []
    each = max(1, _TOKENS // some.ids.numel())
    for start in range(0, len(sites), each):
        entries = [
            (site, torch.where(shared, on_other(h), h))
            for site, h in ((site, streams.sites[site]) for site in sites[start : start + each])
        ]
        moved = logit_diff_of(last_logits(dense, list(dense.run_from(entries).final.values()), some), some)
        found += [share_moved(plain, diff) for diff in moved]
    return found


def profile_table(
    config: Config, dense: ResidualStack, tokenizer: PreTrainedTokenizerBase, behaviours: Mapping[str, Behaviour]
) -> pd.DataFrame:
    """The table ``profile``: `ceiling_profile` of every behaviour that the tokenizer expresses, on training pairs."""
    rows = []
    sites = measured_sites(dense.n_sublayers)
    for name, behaviour in behaviours.items():
        train = express(behaviour, tokenizer, config.behaviours.pairs, config.seed).train
        if train is None or not bool(train.equal_length.all()):
            continue
        found = ceiling_profile(dense, train.take(range(min(PAIRS, len(train)))), sites)
        rows += [
            {"behaviour": name, "dense_site": site, "share_moved": share, "n": min(PAIRS, len(train))}
            for site, share in zip(sites, found, strict=True)
        ]
    return pd.DataFrame(rows, columns=["behaviour", "dense_site", "share_moved", "n"])


def measured_sites(n_dense: int) -> list[int]:
    """The dense sites that a profile is measured at: both ends, and as many between as are worth their time."""
    return sorted({round(i * n_dense / min(SITES, n_dense)) for i in range(min(SITES, n_dense) + 1)})


def place_pairs(
    n_dense: int, n_sparse: int, every: int | None, profiles: Mapping[str, Mapping[int, float]]
) -> list[SitePair]:
    """Pairs of sites whose dense ones stand close together where the profiles rise.

    As many as `pair_sites` gives, at the same sparse sites; first and last stay.

    Args:
        n_dense, n_sparse: sublayers of the two stacks. every: see `pair_sites`.
        profiles: ``{behaviour: {dense site: share moved}}``; one that never reaches a half says nothing.
    """
    even = pair_sites(n_dense, n_sparse, every)
    rises = [rise for profile in profiles.values() if (rise := _rise(profile, n_dense)) is not None]
    if not rises:
        return even
    weight = EVEN / n_dense + (1 - EVEN) * np.mean(rises, axis=0)
    reached = np.concatenate([[0.0], np.cumsum(weight)]) / weight.sum()
    count = len(even)
    wanted = np.interp(np.arange(count) / (count - 1), reached, np.arange(n_dense + 1))
    # The nearest sites that are all different: a rise within one sublayer has as many before it as behind it.
    free = np.clip(_rising(wanted - np.arange(count)), 0, n_dense - (count - 1))
    sites = (free.round().astype(int) + np.arange(count)).tolist()
    return [SitePair(site, pair.sparse) for site, pair in zip(sites, even, strict=True)]


def _rising(values: np.ndarray) -> np.ndarray:
    """The numbers that never fall and are nearest to these in squared distance (isotonic regression)."""
    n = len(values)
    return np.array([max(min(values[i : j + 1].mean() for j in range(k, n)) for i in range(k + 1)) for k in range(n)])


def _rise(profile: Mapping[int, float], n_dense: int) -> np.ndarray | None:
    """How much of a profile's way up lies in each sublayer, ``[n_dense]``; adds up to 1.

    None for one that never reaches a half, or does not rise. Sites that could not be measured (NaN) are passed over.
    """
    sites = sorted(site for site, share in profile.items() if np.isfinite(share))
    if not sites or max(profile[site] for site in sites) < 0.5:
        return None
    values = np.maximum.accumulate(np.clip([profile[site] for site in sites], 0, None))
    rise = np.clip(np.diff(np.interp(np.arange(n_dense + 1), sites, values)), 0, None)
    return rise / rise.sum() if rise.sum() > 0 else None
