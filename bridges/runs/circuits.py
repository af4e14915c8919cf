"""One behaviour's circuits: searched for, measured, moved across the bridges, put to the controls, drawn, judged."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.stage import Expressed, express
from bridges.circuits.activations import activation_rows, prompt_rows
from bridges.circuits.bootstrap import Resampler
from bridges.circuits.bridge_context import device_of
from bridges.circuits.circuit import Circuit
from bridges.circuits.controls import SEARCHING, Case, run_controls
from bridges.circuits.draw import draw_circuit
from bridges.circuits.faithfulness import edge_curve, node_curve
from bridges.circuits.measure import circuit_row, edge_rows, node_rows
from bridges.circuits.search.search import Search
from bridges.circuits.task import Prompts, prompts
from bridges.circuits.weights import edge_matrices
from bridges.compare.agreement import agreement_rows, explained_rows, pair_logit_diffs
from bridges.compare.case import TransferCase
from bridges.compare.rows import transfer_rows
from bridges.compare.verdict import decide
from bridges.config.measuring import CLAIM_CONTROLS, ROBUSTNESS
from bridges.errors import BridgesError
from bridges.interop.mib import save_mib
from bridges.runs.context import RunContext
from bridges.storage.runner import file_name
from bridges.storage.tables import TABLES, read_table

CIRCUIT_TABLES = (
    "circuits", "nodes", "edges", "activations", "prompt_activations", "controls", "faithfulness", "agreement",
    "transfer",
)  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]

# Matplotlib draws for one thread at a time.
_DRAWING = threading.Lock()


def circuit_file(folder: Path, behaviour: str, model: str = "sparse", suffix: str = "json") -> Path:
    """Where a run keeps a behaviour's circuit: ``circuits/<behaviour>.json``, the dense one ``….dense.json``."""
    middle = "" if model == "sparse" else f".{model}"
    return folder / "circuits" / f"{file_name(behaviour)}{middle}.{suffix}"


def searchable(context: RunContext, model: str) -> str | None:
    """Why no circuit can be cut out of a stack, or None."""
    try:
        edge_matrices(context.stacks[model])
    except BridgesError as error:
        return str(error)
    return None


class BehaviourWork:
    """What is done for one behaviour, step by step; every step leaves rows.

    Args:
        context: of the run, with stacks that nobody else works in.
        name: the behaviour's. able: the models that do it, in which circuits are searched for.
    """

    def __init__(self, context: RunContext, name: str, able: Sequence[str]):
        self.context, self.name, self.able = context, name, able
        config = context.config
        self.expressed: Expressed = express(
            context.behaviours[name], context.tokenizer, config.behaviours.pairs, config.seed
        )
        self.rows: Rows = {table: [] for table in CIRCUIT_TABLES}
        self.told = False

    def first(self, pairs: EncodedPairs, count: int) -> EncodedPairs:
        """The first pairs of a split, balanced over frames."""
        return pairs.take(range(min(count, len(pairs))))

    def search(self, model: str, **changes: Any) -> Search:
        """A search in one stack; ``changes`` of its settings."""
        context, train = self.context, self.expressed.train
        assert train is not None
        bridges = context.bridge_context if model == "sparse" else None
        settings = context.config.circuits.settings(**changes)
        text, seed = context.search_text, context.config.seed
        return Search(context.stacks[model], train, context.means(model), settings, seed, model, text, bridges)

    def run(self) -> Rows:
        """All of it, the verdict told as soon as it is known.

        What needs further searches is left out where a claim is missed already (``stop_early``).
        """
        context, expressed = self.context, self.expressed
        if expressed.train is None or expressed.heldout is None:
            self.tell()
            return self.rows
        heldout = self.first(expressed.heldout, context.config.compare.pairs)
        diffs = {m: pair_logit_diffs(context.stacks[m], heldout) for m in ("dense", "sparse")}
        circuit = None
        circuits = context.config.circuits
        if "sparse" in self.able and "sparse" in circuits.models:
            circuit = self.sparse_circuit(heldout)
        if circuit is not None:
            diffs["circuit"] = pair_logit_diffs(context.sparse, heldout, circuit)
        sign = prompts(heldout).sign.view(-1, 2).double().numpy()
        frames = tuple(pair.template for pair in heldout.pairs)
        draws = Resampler(len(heldout), context.config.compare.bootstrap, context.config.seed, frames)
        self.rows["agreement"] += agreement_rows(self.name, diffs, sign, draws)
        if circuit is not None:
            self.rows["agreement"] += explained_rows(self.name, diffs, sign, draws)
            self.measure(circuit)
        elif "dense" in self.able and "dense" in circuits.models and not circuits.controls.stop_early:
            self.dense_circuit(heldout)
        self.tell()
        return self.rows

    def sparse_circuit(self, heldout: EncodedPairs) -> Circuit | None:
        """The sparse model's circuit with its rows; None where it misses its target."""
        search = self.search("sparse")
        circuit = search.run()
        some = prompts(heldout, device_of(search.stack))
        self.rows["circuits"].append(circuit_row(search, circuit, some))
        for method in self.context.config.circuits.baselines:
            ranking = self.search("sparse", method=method, edges=False, prune_attempts=0)
            ranked = ranking.bisect(ranking.rank())
            self.rows["circuits"].append(circuit_row(ranking, ranked, some))
            if ranked.reached and self.context.config.circuits.curves:
                self.rows["faithfulness"] += node_curve(search.stack, ranked, some)
        return self.described(search, circuit, some) if circuit.reached else None

    def dense_circuit(self, heldout: EncodedPairs) -> None:
        """The dense model's own circuit, for its size."""
        if searchable(self.context, "dense") is not None:
            return
        # However large: it is for its size.
        search = self.search("dense", max_node_fraction=1.0)
        circuit = search.run()
        some = prompts(heldout, device_of(search.stack))
        self.rows["circuits"].append(circuit_row(search, circuit, some))
        if circuit.reached:
            self.described(search, circuit, some)

    def described(self, search: Search, circuit: Circuit, heldout: Prompts) -> Circuit:
        """Nodes, edges and curves of a circuit, and its files."""
        context, train = self.context, self.expressed.train
        assert train is not None
        self.rows["nodes"] += node_rows(search.stack, circuit, search.prompts)
        self.rows["edges"] += edge_rows(search.stack, circuit, train, context.tokenizer, search.prompts)
        if context.config.circuits.curves:
            self.rows["faithfulness"] += node_curve(search.stack, circuit, heldout)
            self.rows["faithfulness"] += edge_curve(search.stack, circuit, search.prompts, heldout)
        if circuit.model == "sparse" and context.config.circuits.top_activations:
            self.rows["activations"] += activation_rows(context.peaks, circuit, context.tokenizer)
            example = self.expressed.heldout
            assert example is not None
            self.rows["prompt_activations"] += prompt_rows(search.stack, circuit, example, context.tokenizer)
        self.write_down(circuit)
        return circuit

    def measure(self, circuit: Circuit) -> None:
        """What the claims and the robustness line ask of the sparse circuit; further searches last."""
        context, expressed = self.context, self.expressed
        config = context.config
        assert expressed.train is not None and expressed.heldout is not None
        transfer = TransferCase(context.bridge_context, circuit, context.stream_means, config.compare, config.seed)
        self.rows["transfer"] += transfer_rows(transfer, expressed.train, expressed.heldout, config.verdict.ceiling)
        case = Case(
            context.sparse,
            circuit,
            expressed.train,
            expressed.heldout,
            expressed.reach,
            context.means("sparse"),
            context.heldout_text,
            config.circuits.controls,
            config.circuits.settings(),
            lambda: context.null,
            config.seed,
            config.compare.bootstrap,
            context.bridge_context,
            context.search_text,
        )
        wanted, early = config.circuits.controls.selected, config.circuits.controls.stop_early
        self.rows["controls"] += run_controls(case, [name for name in wanted if name == "necessity"])
        if early and self.missed(("done", "sufficient", "necessary")):
            return
        if "dense" in config.circuits.models:
            self.dense_circuit(self.first(expressed.heldout, config.compare.pairs))
        claims = [name for name in wanted if name in CLAIM_CONTROLS and name != "necessity"]
        self.rows["controls"] += run_controls(case, claims)
        # What is left decides nothing of the verdict.
        self.tell()
        left = [name for name in wanted if name not in CLAIM_CONTROLS]
        if early and self.missed():
            # Only what is reproduced can be robust, and further searches say nothing of what is not.
            left = [name for name in left if name == "reach" or name not in (*ROBUSTNESS, *SEARCHING)]
        self.rows["controls"] += run_controls(case, left)

    def tables(self) -> dict[str, pd.DataFrame]:
        """What is known of this behaviour so far, as tables that a verdict is worked out from."""
        folder = self.context.folder.path
        mine = {name: pd.DataFrame(rows, columns=TABLES[name].names) for name, rows in self.rows.items()}
        for name in ("suite", "behaviours"):
            frame = read_table(folder, name)
            mine[name] = frame[frame["behaviour"] == self.name]
        return mine

    def missed(self, claims: Sequence[str] | None = None) -> bool:
        """Whether a claim (of these) is missed already, by the cautious correction for all behaviours' tests."""
        tables = self.tables()
        found, _ = decide(tables, self.context.config.verdict, len(self.context.behaviours))
        found = found[found["claim"] != "robustness"]
        if claims is not None:
            found = found[found["claim"].isin(claims)]
        return bool((found["state"] == "missed").any())

    def tell(self) -> None:
        """Say the verdict, once, as soon as it is known."""
        if not self.told:
            self.told = True
            self.context.say(self.line())

    def line(self) -> str:
        """The verdict as far as it is known, as one line for a person to read."""
        _, verdicts = decide(self.tables(), self.context.config.verdict, len(self.context.behaviours))
        row = verdicts.iloc[0]
        size = "" if pd.isna(row["nodes"]) else f" ({row['nodes']} nodes, {row['edges']} edges)"
        return f"{self.name}: {row['verdict']}{size}: {row['reason']}"

    def write_down(self, circuit: Circuit) -> None:
        """The circuit's own files: JSON, MIB's graph, and a picture."""
        context, name = self.context, circuit.behaviour
        stack, folder = context.stacks[circuit.model], context.folder.path
        tables = {}
        for table in ("nodes", "edges", "activations"):
            frame = pd.DataFrame(self.rows[table], columns=TABLES[table].names)
            tables[table] = frame[frame["model"] == circuit.model]
        columns = [c for c in TABLES["edges"].names if c not in ("behaviour", "model", "method", "seed")]
        graph = tables["edges"][columns].to_dict("records")
        circuit.save(circuit_file(folder, name, circuit.model), graph)  # type: ignore[arg-type]
        save_mib(stack, circuit, circuit_file(folder, name, circuit.model, "mib.json"))
        inside = len(tables["edges"].query("source in @circuit.nodes and target in @circuit.nodes"))
        title = f"{name}, {circuit.model} model: {circuit.size} nodes, {inside} edges"
        with _DRAWING:
            draw_circuit(
                tables["nodes"],
                tables["edges"],
                tables["activations"],
                title,
                circuit_file(folder, name, circuit.model, "png"),
            )


@torch.no_grad()
def warm_up(context: RunContext) -> None:
    """Compute once, before workers share it, what every behaviour needs."""
    context.means("sparse")
    if "dense" in context.config.circuits.models and searchable(context, "dense") is None:
        context.means("dense")
    _ = context.stream_means, context.untrained, context.behaviours
    if context.config.circuits.top_activations:
        _ = context.peaks
