"""What a run measures after training: one function a stage, each of which leaves tables in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import chosen, measure_behaviours
from bridges.bridge import Bridges, fit_ridge
from bridges.circuits.stage import Workshop, find_circuits
from bridges.compare.stage import Bench, compare_models
from bridges.config import Config
from bridges.data.blocks import TokenBlocks, bigram_log_probabilities
from bridges.dense import DenseStack
from bridges.fidelity.hybrids import bridge_errors, measure_paths, measure_table, site_table
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import all_paths
from bridges.runs.initialise import FULL_BIGRAM_LIMIT, UNTRAINED_SEED, Start, fit_to_text, stream_pairs
from bridges.sparse import SparseTransformer
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table, write_table
from bridges.storage.workers import worker_count
from bridges.training.precision import autocast, resolve_precision


@dataclass
class Parts:
    """What the stages work on."""

    config: Config
    folder: RunFolder
    accelerator: Accelerator
    dense: DenseStack
    data: TokenBlocks
    sparse: SparseTransformer
    bridges: Bridges
    tokenizer: Any
    start: Start
    say: Callable[[str], None]

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def autocast(self) -> AbstractContextManager:
        """The precision that training had."""
        return autocast(resolve_precision(self.config.train.precision, self.device), self.device)

    def fit_to_text(self) -> None:
        """What the first step needs to have measured on text."""
        fit_to_text(self.config, self.start, self.dense, self.sparse, self.bridges, self.data, self.device)

    @cached_property
    def behaviours(self) -> dict[str, Behaviour]:
        """The behaviours that the settings name."""
        return chosen(self.config.behaviours, self.tokenizer)

    @cached_property
    def bigram(self) -> Tensor | None:
        """Log-probabilities ``[V, V]`` of a bigram table; None where the vocabulary is too large for one."""
        if self.dense.vocab_size > FULL_BIGRAM_LIMIT:
            return None
        return bigram_log_probabilities(self.data.blocks["train"], self.dense.vocab_size)

    def baseline(self, seed: int = 0) -> Bridges:
        """Random bridges of the trained ones' shape, means and scales."""
        return self.bridges.like(seed)

    @cached_property
    def ridge(self) -> Bridges:
        """Bridges by closed-form regression between the two finished models' streams."""
        config = self.config
        ridge = self.baseline()
        streams = stream_pairs(
            self.dense, self.sparse, self.data, config.eval.ridge_tokens, config.eval.batch, self.device
        )
        fit_ridge(ridge, streams, config.bridge.ridge)
        return ridge

    @property
    def workers(self) -> int:
        """How many behaviours are worked on at a time."""
        return worker_count(self.config.circuits.workers, {"dense": self.dense, "sparse": self.sparse})

    def bar(self, total: int, name: str, unit: str = "behaviour") -> tqdm:
        """A progress bar over behaviours, or pieces of them."""
        return tqdm(total=total, unit=unit, desc=name, dynamic_ncols=True, mininterval=1.0)


@torch.no_grad()
def evaluate(parts: Parts) -> None:
    """The ``sites`` and ``paths`` tables on held-out documents, the baselines among them."""
    config, dense, sparse, bridges = parts.config, parts.dense, parts.sparse, parts.bridges
    ids = parts.data.take("test", config.eval.sequences)
    shared: dict[str, Any] = {"batch": config.eval.batch, "device": parts.device}
    measured = shared | {"bootstrap": config.eval.bootstrap, "seed": config.seed, "split": "test"}
    count = len(bridges)
    singles = [MixedPath(first, (i,)) for first in "DS" for i in range(count)]
    paths, sites = [], []
    for label, some, which in (
        ("trained", bridges, all_paths(count, config.eval.double_paths, config.seed)),
        ("untrained", parts.baseline(config.seed + UNTRAINED_SEED), singles),
        ("ridge", parts.ridge, singles),
    ):
        frame = measure_paths(which, dense, sparse, some, ids, label=label, autocast=parts.autocast(), **measured)
        errors = bridge_errors(dense, sparse, some, ids, autocast=parts.autocast(), **shared)
        paths.append(frame)
        sites.append(site_table(errors, frame, label))
    if parts.bigram is not None:
        paths.append(measure_table(parts.bigram, dense, ids, **measured))
    write_table(parts.folder.path, "paths", pd.concat(paths, ignore_index=True))
    write_table(parts.folder.path, "sites", pd.concat(sites, ignore_index=True))


def behaviours(parts: Parts) -> None:
    """The ``suite`` and ``behaviours`` tables."""
    config = parts.config
    bar = parts.bar(len(parts.behaviours), "behaviours")
    suite, rows = measure_behaviours(
        parts.behaviours,
        config.behaviours,
        parts.dense,
        parts.sparse,
        parts.bridges,
        parts.tokenizer,
        bigram=None if parts.bigram is None else parts.bigram.to(parts.device),
        device=parts.device,
        autocast=parts.autocast,
        bootstrap=config.eval.bootstrap,
        seed=config.seed,
        count=parts.workers,
        progress=lambda name: bar.set_postfix_str(name) or bar.update(),
    )
    bar.close()
    write_table(parts.folder.path, "suite", suite)
    write_table(parts.folder.path, "behaviours", rows)


def circuits(parts: Parts) -> None:
    """The circuits of what the dense model can do, and their tables."""
    config = parts.config
    measured = read_table(parts.folder.path, "behaviours")
    dense = measured[(measured["model"] == "dense") & (measured["split"] == "heldout")]
    shop = Workshop(
        parts.folder.path,
        config.circuits,
        {"sparse": parts.sparse, "dense": parts.dense},
        parts.data,
        parts.tokenizer,
        config.behaviours.pairs,
        config.seed,
        parts.autocast,
    )
    accuracies = dict(zip(dense["behaviour"], dense["accuracy"], strict=True))
    able = sum(accuracies.get(name, -1.0) >= config.circuits.min_accuracy for name in parts.behaviours)
    # Two pieces of work for each: its nodes, and the rest.
    bar = parts.bar(2 * able, "circuits", "piece")
    find_circuits(
        shop,
        parts.behaviours,
        accuracies,
        lambda name: bar.set_postfix_str(name) or bar.update(),
        parts.say,
    )
    bar.close()


def compare(parts: Parts) -> None:
    """What circuits explain of the dense model: agreement, transfer, similarity, evidence and verdicts."""
    config = parts.config
    bar = parts.bar(len(parts.behaviours), "verdicts")
    bench = Bench(
        parts.folder.path,
        config.compare,
        config.verdict,
        parts.dense,
        parts.sparse,
        parts.bridges,
        parts.ridge.requires_grad_(False),
        parts.data,
        parts.tokenizer,
        config.behaviours.pairs,
        config.seed,
        count=parts.workers,
        autocast=parts.autocast,
    )
    compare_models(bench, parts.behaviours, lambda name: bar.set_postfix_str(name) or bar.update())
    bar.close()


def wanted(config: Config) -> dict[str, Callable[[Parts], None]]:
    """The stages after training that these settings ask for, in order."""
    stages: dict[str, Callable[[Parts], None]] = {"evaluate": evaluate}
    if config.behaviours.suite != "none":
        stages["behaviours"] = behaviours
        if config.circuits.models:
            stages["circuits"] = circuits
        if "sparse" in config.circuits.models:
            stages["compare"] = compare
    return stages
