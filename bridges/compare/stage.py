"""The comparison of a run: agreement, transfer, similarity and the verdicts, behaviour by behaviour.

What is finished of a behaviour lies in a folder of its own until all are done, as with circuits.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import express
from bridges.bridge import Bridges
from bridges.circuits.circuit import Circuit
from bridges.circuits.stage import circuit_file, file_name
from bridges.circuits.task import prompts
from bridges.compare.agreement import agreement_rows, device_of, pair_margins, text_rows
from bridges.compare.crossing import Transfer
from bridges.compare.rows import transfer_rows
from bridges.compare.similarity import similarity_rows
from bridges.compare.verdict import decide
from bridges.config import CompareConfig, VerdictConfig, searched_from
from bridges.data.blocks import TokenBlocks
from bridges.stack import ResidualStack
from bridges.storage.folder import RunFolder
from bridges.storage.tables import TABLES, read_table, table_names, write_part, write_table
from bridges.storage.workers import workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPARE_TABLES = ("agreement", "transfer", "similarity", "evidence", "verdicts")
_PART_TABLES = ("agreement", "transfer")
_JUDGED_BY = ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")
_BATCH = 8

Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Bench:
    """What all behaviours of a run share.

    Attributes:
        folder: of the run, with its tables and circuits. config, verdict: what is measured, and the bars.
        dense, sparse: the stacks, in evaluation mode. bridges: between them. ridge: ridge-regressed ones with the same
            scales, or None to leave them out. dense2: another dense stack with the same tokens, as the ceiling.
        data: the run's text. tokenizer: of the stacks. pairs: prompt pairs per split. seed: of every draw.
        count: how many behaviours are compared at a time. autocast: makes the precision that models are run in; entered
            in every thread.
    """

    folder: Path
    config: CompareConfig
    verdict: VerdictConfig
    dense: ResidualStack
    sparse: ResidualStack
    bridges: Bridges
    ridge: Bridges | None
    data: TokenBlocks
    tokenizer: PreTrainedTokenizerBase
    pairs: int
    seed: int
    dense2: ResidualStack | None = None
    count: int = 1
    autocast: Callable[[], AbstractContextManager] = nullcontext

    def copy(self) -> Bench:
        """The same, and what it has computed, with stacks of its own."""
        other = replace(self, dense=copy.deepcopy(self.dense), sparse=copy.deepcopy(self.sparse))
        other.__dict__["means"] = self.means
        return other

    def halt(self) -> None:
        """Stop what is going on in its stacks."""
        for stack in (self.dense, self.sparse):
            stack.nodes.halt()

    def text(self, split: str, tokens: int) -> Tensor:
        """At least one block and about so many tokens of a split, ids ``[n, context]``."""
        return self.data.take(split, max(1, tokens // self.data.context))

    @cached_property
    def means(self) -> Tensor:
        """Mean of the sparse stream over training text at every bridge, ``[bridges, d_sparse]`` in fp32."""
        return stream_means(self.sparse, self.bridges, self.text("train", self.config.reference_tokens))


@torch.no_grad()
def stream_means(sparse: ResidualStack, bridges: Bridges, text: Tensor) -> Tensor:
    """Mean of the sparse stream over text ``[n, T]`` at every bridge, ``[bridges, d_sparse]`` in fp32."""
    total = torch.zeros(len(bridges), sparse.d_model, dtype=torch.float64)
    for ids in text.split(_BATCH):
        sites = sparse.run(ids.to(device_of(sparse))).sites
        for i, pair in enumerate(bridges.pairs):
            total[i] += sites[pair.sparse].double().sum((0, 1)).cpu()
    return (total / text.numel()).float()


def one_behaviour(bench: Bench, behaviour: Behaviour) -> Rows:
    """Rows of ``agreement`` and ``transfer``; none of a behaviour that the tokenizer cannot express."""
    rows: Rows = {name: [] for name in _PART_TABLES}
    expressed = express(behaviour, bench.tokenizer, bench.pairs, bench.seed)
    if expressed.train is None or expressed.heldout is None:
        return rows
    path = circuit_file(bench.folder, behaviour.name)
    circuit = Circuit.load(path) if path.is_file() else None
    heldout = expressed.heldout.take(range(min(bench.config.heldout_pairs, len(expressed.heldout))))
    margins = {"dense": pair_margins(bench.dense, heldout), "sparse": pair_margins(bench.sparse, heldout)}
    if circuit is not None:
        margins["circuit"] = pair_margins(bench.sparse, heldout, circuit)
    sign = prompts(heldout).sign.view(-1, 2).double().numpy()
    rows["agreement"] = agreement_rows(behaviour.name, margins, sign, bench.config.bootstrap, bench.seed)
    if circuit is not None:
        carried = Transfer(
            bench.dense, bench.sparse, bench.bridges, bench.ridge, circuit, bench.means, bench.config, bench.seed
        )
        rows["transfer"] = transfer_rows(carried, expressed.train, expressed.heldout)
    return rows


def judge(folder: Path, config: VerdictConfig) -> dict[str, pd.DataFrame]:
    """Evidence and verdicts of a run from its tables alone; they are written too.

    Args:
        folder: of the run. config: the bars, perhaps others than when it ran.

    Raises:
        ConfigError: behaviours would be judged that no circuit was searched for.
    """
    if (folder / "config.yaml").is_file():
        searched_from(RunFolder(folder).config.circuits, config)
    written = table_names(folder)
    evidence, verdicts = decide({name: read_table(folder, name) for name in _JUDGED_BY if name in written}, config)
    for name, frame in (("evidence", evidence), ("verdicts", verdicts)):
        write_table(folder, name, frame)
    return {"evidence": evidence, "verdicts": verdicts}


def compare_models(
    bench: Bench, behaviours: Mapping[str, Behaviour], progress: Callable[[str], None] = lambda name: None
) -> dict[str, pd.DataFrame]:
    """The tables ``agreement``, ``transfer``, ``similarity``, ``evidence`` and ``verdicts`` of a run.

    Circuits are read from the run's folder; behaviours without one are compared as far as they can be.

    Args:
        behaviours: in the order of the suite.
        progress: told each behaviour's name when it is done.

    Returns:
        ``{table: rows}``; they are written too.
    """
    config = bench.config
    parts = bench.folder / "compare" / ".parts"
    left = [name for name in behaviours if not (parts / file_name(name)).is_dir()]
    # What has a circuit takes longest, and should not be what several workers wait for at the end.
    left.sort(key=lambda name: not circuit_file(bench.folder, name).is_file())
    for name in behaviours:
        if name not in left:
            progress(name)
    # By all of them, not by what is left: a run that goes on works with as many threads as one that was not ended.
    count = max(1, min(bench.count, len(behaviours)))
    with bench.autocast():
        own = [bench] if count == 1 else [bench.copy() for _ in range(count)]

    def work(mine: Bench, name: str) -> None:
        with mine.autocast():
            write_part(parts / file_name(name), one_behaviour(mine, behaviours[name]))
        progress(name)

    def halt() -> None:
        for mine in own:
            mine.halt()

    with workers(own, halt) as each:
        for _ in each(work, left):
            pass
    stacks = {"dense": bench.dense, "sparse": bench.sparse}
    if bench.dense2 is not None:
        stacks["dense2"] = bench.dense2
    with bench.autocast():
        whole = text_rows(stacks, bench.text("test", config.text_tokens), config.bootstrap, bench.seed)
        likeness = similarity_rows(
            bench.dense,
            bench.sparse,
            bench.bridges,
            bench.text("test", config.similarity_tokens),
            config.ridge,
            config.folds,
            _BATCH,
        )
    tables = {"agreement": [pd.DataFrame(whole)], "transfer": [], "similarity": [pd.DataFrame(likeness)]}
    for table in _PART_TABLES:
        tables[table] += [read_table(parts / file_name(name), table) for name in behaviours]
    done = {}
    for table, frames in tables.items():
        frames = [f for f in frames if len(f)]
        empty = pd.DataFrame(columns=TABLES[table].names)
        done[table] = pd.concat(frames, ignore_index=True) if frames else empty
        write_table(bench.folder, table, done[table])
    done |= judge(bench.folder, bench.verdict)
    shutil.rmtree(parts.parent, ignore_errors=True)
    return done
