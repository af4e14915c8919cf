"""What a reader of a run's figures should be warned of, one line each, from its tables alone."""

from __future__ import annotations

import contextlib
import json

import pandas as pd

from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table

# Optimizer steps below which a run made with train=smoke has learned nothing worth reading.
FEW_STEPS = 200
# A KL counts as above another one from so much on, as a share of it.
SLACK = 0.05
DIRECTIONS = (("d2s", "d→s"), ("s2d", "s→d"))


def cautions(folder: RunFolder) -> list[str]:
    """The warnings of a run that has been evaluated; empty where there are none."""
    sites, paths = read_table(folder.path, "sites"), read_table(folder.path, "paths")
    lines = [worse_than_ridge(sites), no_better_than_bigrams(paths), only_a_smoke_test(folder)]
    return [f"Caution: {line}" for line in lines if line]


def worse_than_ridge(sites: pd.DataFrame) -> str:
    """Names the bridges whose single crossing has a clearly higher KL than ridge regression on the same streams.

    Args:
        sites: the table of that name.
    """
    by_bridge = {label: rows.set_index("bridge") for label, rows in sites.groupby("bridges")}
    if not {"trained", "ridge"} <= by_bridge.keys():
        return ""
    trained, ridge = by_bridge["trained"], by_bridge["ridge"]
    found = []
    for key, arrow in DIRECTIONS:
        kl, baseline = trained[f"kl_{key}"], ridge[f"kl_{key}"].reindex(trained.index)
        worse = kl.index[kl > (1 + SLACK) * baseline].tolist()
        if not worse:
            continue
        apart = trained[f"kl_{key}_low"] > ridge[f"kl_{key}_high"].reindex(trained.index)
        names = ", ".join(str(i) + ("*" if apart[i] else "") for i in worse)
        found.append(
            f"{arrow} at {len(worse)} of {len(trained)} ({names}; KL {(kl - baseline)[worse].max():.2g} above)"
        )
    if not found:
        return ""
    marked = " *: the intervals do not meet." if any("*" in text for text in found) else ""
    return (
        f"trained bridges do worse than ridge regression: {'; '.join(found)}.{marked} More train.tokens or another "
        "train.bridge_lr may help."
    )


def no_better_than_bigrams(paths: pd.DataFrame) -> str:
    """Says so where the sparse model is no nearer to the dense model than a table of bigrams.

    Args:
        paths: the table of that name; it holds no bigrams where the vocabulary is large.
    """
    kl = {kind: float(rows["kl"].iloc[0]) for kind, rows in paths.groupby("kind")}
    if "bigram" not in kl or kl["pure_sparse"] < kl["bigram"]:
        return ""
    return (
        f"the sparse model's KL of {kl['pure_sparse']:.3f} is not below that of a table of bigrams, "
        f"{kl['bigram']:.3f}: it was trained too little for its circuits and bridges to mean anything."
    )


def command_of(folder: RunFolder) -> list[str]:
    """The words of the command line that a run was begun with; none where that is not known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [str(word) for word in json.loads((folder.path / "environment.json").read_text())["command"]]
    return []


def only_a_smoke_test(folder: RunFolder) -> str:
    """Says so where the run's command asked for ``train=smoke`` and its training was as short as that."""
    config = folder.config
    steps = -(-config.train.tokens // (config.train.batch * config.data.context))
    if "train=smoke" not in command_of(folder) or steps > FEW_STEPS:
        return ""
    return (
        f"train=smoke trains {steps} steps on {config.train.tokens:,} tokens: it shows that everything works, and its "
        "figures mean little."
    )
