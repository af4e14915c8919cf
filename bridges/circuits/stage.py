"""The circuits of a run: searched for, measured, put to the controls, drawn and written down, behaviour by behaviour.

First the nodes of all circuits are found, then each is measured and put to the controls: two shorter pieces of work
leave several workers less to wait for at the end than a long one. What is finished of a piece lies in a folder of its
own until all are done, so that a kill costs no more than one; the tables are put together from those parts in the order
of the suite, whoever computed them.
"""

from __future__ import annotations

import copy
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import Expressed, express
from bridges.circuits.ablation import node_means
from bridges.circuits.activations import Peaks, activation_rows
from bridges.circuits.circuit import Circuit
from bridges.circuits.controls import Case, Null, run_controls
from bridges.circuits.controls.random_weights import shuffled_model
from bridges.circuits.draw import draw_circuit
from bridges.circuits.faithfulness import edge_curve, node_curve
from bridges.circuits.measure import circuit_row, edge_rows, node_rows
from bridges.circuits.mib import save_mib
from bridges.circuits.search.search import Search
from bridges.circuits.task import Prompts, prompts
from bridges.circuits.weights import wires
from bridges.config import CircuitsConfig
from bridges.config.search import CircuitSettings
from bridges.data.blocks import TokenBlocks
from bridges.errors import BridgesError
from bridges.stack import ResidualStack
from bridges.storage.folder import whole_folder
from bridges.storage.tables import TABLES, read_table, write_part, write_table
from bridges.storage.workers import worker_count, workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CIRCUIT_TABLES = ("circuits", "nodes", "edges", "activations", "controls", "faithfulness")
# An offset that keeps the shuffled model's draws apart from the searches'.
NULL_SEED = 1000
_BATCH = 8

# Matplotlib draws for one thread at a time.
_DRAWING = threading.Lock()

Rows = dict[str, list[dict[str, Any]]]


def file_name(behaviour: str) -> str:
    """A file name for a behaviour, whatever its name: unusual characters are replaced and a hash keeps names apart."""
    plain = re.sub(r"[^\w.-]", "_", behaviour).lstrip(".")
    if plain == behaviour:
        return plain
    return f"{plain}-{hashlib.blake2b(behaviour.encode(), digest_size=3).hexdigest()}"


def circuit_file(folder: Path, behaviour: str, model: str = "sparse", suffix: str = "json") -> Path:
    """Where a run keeps a behaviour's circuit: ``circuits/<behaviour>.json``, the dense one ``….dense.json``."""
    middle = "" if model == "sparse" else f".{model}"
    return folder / "circuits" / f"{file_name(behaviour)}{middle}.{suffix}"


@dataclass
class Workshop:
    """What all behaviours of a run share.

    Attributes:
        folder: of the run. config: what is wanted. stacks: ``{"sparse": …, "dense": …}`` in evaluation mode.
        data: the run's text. tokenizer: of both stacks. pairs: prompt pairs per split. seed: of every draw.
        autocast: makes the precision that models are run in; entered in every thread.
    """

    folder: Path
    config: CircuitsConfig
    stacks: Mapping[str, ResidualStack]
    data: TokenBlocks
    tokenizer: PreTrainedTokenizerBase
    pairs: int
    seed: int
    autocast: Callable[[], AbstractContextManager] = nullcontext
    _means: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def copy(self) -> Workshop:
        """The same with stacks of its own."""
        return replace(self, stacks={model: copy.deepcopy(stack) for model, stack in self.stacks.items()})

    def halt(self) -> None:
        """Stop what is going on in its stacks."""
        for stack in self.stacks.values():
            stack.nodes.halt()

    def text(self, split: str, tokens: int) -> Tensor:
        """At least one block and about so many tokens of a split, ids ``[n, context]``."""
        return self.data.take(split, max(1, tokens // self.data.context))

    def _batches(self, stack: ResidualStack) -> list[Tensor]:
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        return [ids.to(device) for ids in self.text("train", self.config.reference_tokens).split(_BATCH)]

    def means(self, model: str) -> dict[str, Tensor]:
        """Means of every node of a stack over training text."""
        if model not in self._means:
            stack = self.stacks[model]
            self._means[model] = node_means(stack, self._batches(stack))
        return self._means[model]

    def settings(self, behaviour: str, **changes: Any) -> CircuitSettings:
        """The settings of a search for one behaviour, some of them changed."""
        return self.config.settings(**{"target": self.config.targets.get(behaviour, self.config.target)} | changes)

    def search(self, model: str, train: EncodedPairs, **changes: Any) -> Search:
        """A search in one stack; ``changes`` of its settings."""
        settings = self.settings(train.behaviour, **changes)
        return Search(self.stacks[model], train, self.means(model), settings, self.seed, model, self.search_text)

    @cached_property
    def null(self) -> Null:
        """The sparse model with shuffled weights, made once for all behaviours."""
        stack = self.stacks["sparse"]
        return shuffled_model(stack, self._batches(stack), self.seed + NULL_SEED)

    @cached_property
    def search_text(self) -> Tensor:
        """Training text that removed nodes are resampled from."""
        return self.text("train", self.config.reference_tokens)

    @cached_property
    def heldout_text(self) -> Tensor:
        return self.text("test", self.config.activation_tokens)

    @cached_property
    def peaks(self) -> Peaks:
        """Where the sparse model's nodes are most active in held-out text."""
        return Peaks.find(self.stacks["sparse"], self.heldout_text, self.config.top_activations, _BATCH)


def find_nodes(shop: Workshop, expressed: Expressed, full: Circuit | None = None) -> dict[str, Circuit]:
    """The circuit of a behaviour in each stack before its edges are looked at, ``{model: circuit}``.

    Args:
        full: the circuit of all nodes of the first model, where it is measured already.
    """
    assert expressed.train is not None
    first = shop.config.models[:1]
    return {
        model: shop.search(model, expressed.train).by_nodes(full if [model] == first else None)
        for model in shop.config.models
    }


def _learned(
    shop: Workshop, by_nodes: Circuit, expressed: Expressed, heldout: Prompts, few: Prompts, rows: Rows
) -> Circuit:
    """The circuit of one stack after its edges were looked at, with its rows in the tables that both stacks have."""
    assert expressed.train is not None
    stack = shop.stacks[by_nodes.model]
    search = shop.search(by_nodes.model, expressed.train)
    circuit = search.by_edges(by_nodes)
    rows["circuits"].append(circuit_row(search, circuit, heldout))
    if circuit.reached:
        rows["nodes"] += node_rows(stack, circuit, few, shop.config.importance_nodes)
        rows["edges"] += edge_rows(stack, circuit, expressed.train, shop.tokenizer)
        rows["faithfulness"] += node_curve(stack, circuit, few)
        rows["faithfulness"] += edge_curve(search, circuit, few)
    return circuit


def _baselines(shop: Workshop, expressed: Expressed, heldout: Prompts, few: Prompts, rows: Rows) -> None:
    """Circuits of the other rankings in the sparse model: as many best nodes as reach the target, nothing more done."""
    assert expressed.train is not None
    stack = shop.stacks["sparse"]
    for method in shop.config.baselines:
        search = shop.search("sparse", expressed.train, method=method, edges=False)
        circuit = search.bisect(search.rank())
        rows["circuits"].append(circuit_row(search, circuit, heldout))
        if circuit.reached:
            rows["faithfulness"] += node_curve(stack, circuit, few)


def _write_down(shop: Workshop, circuit: Circuit, rows: Rows) -> None:
    """The circuit's own files: JSON, MIB's graph, and a picture."""
    stack, name = shop.stacks[circuit.model], circuit.behaviour
    tables = {}
    for table in ("nodes", "edges", "activations"):
        frame = pd.DataFrame(rows[table], columns=TABLES[table].names)
        tables[table] = frame[frame["model"] == circuit.model]
    columns = [c for c in TABLES["edges"].names if c not in ("behaviour", "model", "method", "seed")]
    graph = [{c: row[c] for c in columns} for row in rows["edges"] if row["model"] == circuit.model]
    circuit.save(circuit_file(shop.folder, name, circuit.model), graph)
    save_mib(stack, circuit, circuit_file(shop.folder, name, circuit.model, "mib.json"))
    inside = len(tables["edges"].query("source in @circuit.nodes and target in @circuit.nodes"))
    title = (
        f"{name}, {circuit.model} model: {circuit.size} nodes, {inside} edges, "
        f"train loss {circuit.train_loss:.3f} (target {circuit.target:g})"
    )
    path = circuit_file(shop.folder, name, circuit.model, "png")
    with _DRAWING:
        draw_circuit(tables["nodes"], tables["edges"], tables["activations"], title, path)


def one_behaviour(shop: Workshop, expressed: Expressed, found: Mapping[str, Circuit]) -> Rows:
    """Everything about one behaviour; returns the rows of each table.

    Args:
        found: what `find_nodes` has found.
    """
    assert expressed.train is not None and expressed.heldout is not None
    config = shop.config
    rows: Rows = {name: [] for name in CIRCUIT_TABLES}
    for model in config.models:
        stack = shop.stacks[model]
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        heldout = prompts(expressed.heldout.take(range(min(config.heldout_pairs, len(expressed.heldout)))), device)
        few = prompts(expressed.heldout.take(range(min(config.controls.set_pairs, len(expressed.heldout)))), device)
        circuit = _learned(shop, found[model], expressed, heldout, few, rows)
        if not circuit.reached:
            continue
        if model == "sparse":
            _baselines(shop, expressed, heldout, few, rows)
            rows["activations"] += activation_rows(shop.peaks, circuit, shop.tokenizer)
            case = Case(
                stack,
                circuit,
                expressed.train,
                expressed.heldout,
                shop.means("sparse"),
                shop.heldout_text,
                config.controls,
                shop.settings(circuit.behaviour),
                lambda: shop.null,
                shop.seed,
                shop.search_text,
                found[model],
            )
            rows["controls"] += run_controls(case)
        _write_down(shop, circuit, rows)
    return rows


def find_circuits(
    shop: Workshop,
    behaviours: Mapping[str, Behaviour],
    accuracies: Mapping[str, float],
    progress: Callable[[str], None] = lambda name: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, pd.DataFrame]:
    """The circuit tables of a run.

    Args:
        behaviours: in the order of the suite.
        accuracies: the dense model's held-out accuracy by behaviour; those that are missing cannot be expressed.
        progress: told each behaviour's name twice: when its nodes are found, and when it is done.
        say: told what is left out and why.

    Returns:
        ``{table: rows}``; they are written too.
    """
    shop = replace(shop, config=replace(shop.config, models=_searchable(shop, say)))
    able = [n for n in behaviours if accuracies.get(n, -1.0) >= shop.config.min_accuracy]
    parts, begun = shop.folder / "circuits" / ".parts", shop.folder / "circuits" / ".nodes"
    left = [n for n in able if not (parts / file_name(n)).is_dir()]
    for name in able:
        if name not in left:
            progress(name)
            progress(name)
    expressed = {name: express(behaviours[name], shop.tokenizer, shop.pairs, shop.seed) for name in left}
    # By all of them, not by what is left: a run that goes on works with as many threads as one that was not ended.
    count = max(1, min(worker_count(shop.config.workers, shop.stacks), len(able)))
    if count > 1:
        # Once for all copies.
        with shop.autocast():
            for model in shop.config.models:
                shop.means(model)
    own = [shop] if count == 1 else [shop.copy() for _ in range(count)]

    full: dict[str, Circuit] = {}

    def look(mine: Workshop, name: str) -> Circuit:
        train = expressed[name].train
        assert train is not None
        with mine.autocast():
            return mine.search(mine.config.models[0], train).full

    found: dict[str, Future[dict[str, Circuit]]] = {name: Future() for name in left}

    def find(mine: Workshop, name: str) -> None:
        folder = begun / file_name(name)
        try:
            if not folder.is_dir():
                with mine.autocast():
                    circuits = find_nodes(mine, expressed[name], full.get(name))
                with whole_folder(folder) as place:
                    for model, circuit in circuits.items():
                        circuit.save(place / f"{model}.json")
            found[name].set_result({m: Circuit.load(folder / f"{m}.json") for m in mine.config.models})
        except BaseException as error:
            found[name].set_exception(error)
            raise
        progress(name)

    def work(mine: Workshop, name: str) -> None:
        # Another worker may still be at it.
        circuits = found[name].result()
        with mine.autocast():
            write_part(parts / file_name(name), one_behaviour(mine, expressed[name], circuits))
        progress(name)

    def halt() -> None:
        for mine in own:
            mine.halt()

    with workers(own, halt) as each:
        if shop.config.models:
            full |= zip(left, each(look, left), strict=True)
            # What is done best is the likeliest to have a circuit, which takes longest and should not be what several
            # workers wait for at the end.
            left.sort(key=lambda name: full[name].train_loss)
        steps = [(step, name) for step in (find, work) for name in left]
        for _ in each(lambda mine, step: step[0](mine, step[1]), steps):
            pass
    tables = {}
    for table in CIRCUIT_TABLES:
        frames = [read_table(parts / file_name(name), table) for name in able]
        frames = [f for f in frames if len(f)]
        empty = pd.DataFrame(columns=TABLES[table].names)
        tables[table] = pd.concat(frames, ignore_index=True) if frames else empty
        write_table(shop.folder, table, tables[table])
    for folder in (parts, begun):
        shutil.rmtree(folder, ignore_errors=True)
    return tables


def _searchable(shop: Workshop, say: Callable[[str], None]) -> list[str]:
    """The stacks whose edges can be listed."""
    found = []
    for model in shop.config.models:
        try:
            wires(shop.stacks[model])
            found.append(model)
        except BridgesError as error:
            say(f"No circuits in the {model} model: {error}")
    return found
