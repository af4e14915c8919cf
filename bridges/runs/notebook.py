"""A finished run in a notebook: ``run = bridges.load("runs/…")``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.stage import express
from bridges.bridge import Bridges
from bridges.circuits.attribution import attribution
from bridges.circuits.bridge_context import BridgeContext, map_through_bridge
from bridges.circuits.circuit import Circuit, ablated, circuit_logits, only
from bridges.circuits.draw import draw_circuit
from bridges.circuits.task import prompts
from bridges.config import STACKS
from bridges.data.blocks import TokenBlocks
from bridges.data.tokenizer import leading_token, vocabulary_size
from bridges.dense import DenseStack
from bridges.errors import BridgesError, CheckpointError, nearest
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import path_logits
from bridges.interop.attribution_graph import attribution_graph, given_names, save_attribution_graph
from bridges.report.names import read_names
from bridges.runs.circuits import circuit_file
from bridges.runs.inputs import check_inputs, model_inputs, text_inputs
from bridges.runs.models import load_models, load_text
from bridges.runs.sources import select_behaviours
from bridges.sparse import SparseTransformer, load_sparse
from bridges.stack import ResidualStack
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunCircuit:
    """A circuit of a finished run, with the model it was cut out of.

    Attributes:
        circuit: its nodes, weights and calibration (`bridges.circuits.Circuit`).
        nodes, activations: its rows of the tables of those names; nodes with the columns ``name`` and ``group`` beside
            them, which a reader gave in the report (``names.json`` in the run's folder), empty where there are none.
        edges: its weights between kept nodes, rows of table ``edges``. outer_edges: those of embedding and unembedding.
    """

    def __init__(self, run: Run, circuit: Circuit, nodes: pd.DataFrame, edges: pd.DataFrame, activations: pd.DataFrame):
        self._run, self.circuit, self.nodes, self.activations = run, circuit, nodes, activations
        inside = edges["source"].isin(list(circuit.nodes)) & edges["target"].isin(list(circuit.nodes))
        self.edges, self.outer_edges = edges[inside].reset_index(drop=True), edges[~inside].reset_index(drop=True)

    def __repr__(self) -> str:
        c = self.circuit
        return f"RunCircuit({c.behaviour!r}, {c.model}: {c.size} nodes, {len(self.edges)} edges)"

    @property
    def stack(self) -> ResidualStack:
        """The whole model."""
        return self._run.sparse if self.circuit.model == "sparse" else self._run.dense

    @torch.no_grad()
    def run(self, ids: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of the circuit alone over token ids ``[B, T]``, uncalibrated."""
        return circuit_logits(self.stack, self.circuit, ids)

    @contextmanager
    def ablate(self) -> Iterator[ResidualStack]:
        """The model without the circuit while the block runs: its nodes are at their means."""
        with ablated(self.stack, self.circuit):
            yield self.stack

    @torch.no_grad()
    def ablated(self, ids: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of the model without the circuit."""
        with self.ablate() as stack:
            return stack.logits(ids)

    def draw(self, path: str | Path | None = None) -> Figure:
        """A picture of the circuit, written to a ``.png`` or ``.svg`` file where one is named."""
        title = (
            f"{self.circuit.behaviour}, {self.circuit.model} model: {self.circuit.size} nodes, {len(self.edges)} edges"
        )
        return draw_circuit(self.nodes, self.edges, self.activations, title, path)

    def save_graph(self, folder: str | Path, pairs: EncodedPairs | None = None) -> Path:
        """Write the circuit on one prompt as an attribution graph, which the viewers of circuit-tracer and Neuronpedia
        open: ``circuit-tracer start-server --graph_file_dir <folder>``.

        Args:
            folder: of graphs; others in it stay listed.
            pairs: whose first clean prompt is shown (default: the behaviour's first held-out one).

        Returns:
            the graph's file.
        """
        pairs = self._run.prompts(self.circuit.behaviour, count=1) if pairs is None else pairs.take([0])
        clean = prompts(pairs).take(slice(0, 1))
        tokenizer, names = self._run.tokenizer, read_names(self._run.folder.path)
        labels, groups = given_names({"names": names.names, "groups": names.groups}, self.circuit)
        columns = ["source", "source_channel", "target", "target_channel", "attribution"]
        graph = attribution_graph(
            self.stack,
            self.circuit,
            clean.ids[0],
            [tokenizer.decode([i]) for i in clean.ids[0].tolist()],
            {i: tokenizer.decode([i]) for i in clean.choice[0].tolist()},
            attribution(self.stack, clean, self.circuit.reference, self.circuit, by_token=True),
            self.edges[columns].itertuples(index=False, name=None),
            labels,
            groups,
            slug=f"{self.circuit.behaviour}-{self.circuit.model}",
            scan=f"{self._run.config.model.label}-{self.circuit.model}",
        )
        return save_attribution_graph(graph, folder)


@dataclass(frozen=True)
class Verdict:
    """A run's answer on one behaviour.

    Attributes:
        row: of table ``verdicts``. claims: rows of table ``claims``: every criterion with interval, bar and state.
    """

    row: dict[str, Any]
    claims: pd.DataFrame

    def __repr__(self) -> str:
        lines = [f"{self.row['behaviour']}: {self.row['verdict']}: {self.row['reason']}"]
        for claim, rows in self.claims.groupby("claim", sort=False):
            lines.append(f"  {claim}: " + "; ".join(f"{r['short']} ({r['state']})" for r in rows.to_dict("records")))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shown = self.claims[["claim", "criterion", "value", "value_low", "value_high", "bar", "state"]]
        title = f"<b>{self.row['behaviour']}: {self.row['verdict']}</b>, {self.row['reason']}"
        return f"<p>{title}</p>{shown.to_html(index=False, float_format=lambda v: f'{v:.3f}')}"


class Run:
    """One run: its models, its tables and its mixed passes. Models are loaded when first asked for.

    Args:
        path: the run's folder.
        allow_changed: read the text and load the dense model even where they are not those that the run had.
    """

    def __init__(self, path: str | Path, allow_changed: bool = False):
        self.folder = RunFolder(path)
        self.config = self.folder.config
        self._allow_changed = allow_changed

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, {self.folder.status['status']})"

    @cached_property
    def _dense_and_tokenizer(self):
        dense, tokenizer = load_models(self.config, saved=self.folder.model)
        check_inputs(self.folder.path, model_inputs(self.config, dense), self._allow_changed)
        return dense, tokenizer

    @cached_property
    def data(self) -> TokenBlocks:
        """The run's text as blocks of tokens.

        Raises:
            CheckpointError: it is not the text that the run had (unless that is allowed).
        """
        known = select_behaviours(self.config.behaviours, self.tokenizer)
        data = load_text(self.config, self.tokenizer, known, self.dense.vocab_size)
        check_inputs(self.folder.path, text_inputs(self.config, data), self._allow_changed)
        return data

    @property
    def dense(self) -> DenseStack:
        """The frozen dense stack."""
        return self._dense_and_tokenizer[0]

    @property
    def tokenizer(self):
        """The dense model's tokenizer, which the sparse model shares."""
        return self._dense_and_tokenizer[1]

    @cached_property
    def sparse(self) -> SparseTransformer:
        """The trained sparse model."""
        if not self.folder.done("train"):
            raise CheckpointError(
                f"{self.folder.path} has not finished training; go on with resume={self.folder.path}."
            )
        return load_sparse(self.folder.model).eval()

    @cached_property
    def bridges(self) -> Bridges:
        """The trained bridges."""
        return Bridges.from_pretrained(self.folder.bridges).eval()

    @torch.no_grad()
    def hybrid(
        self,
        ids: Tensor | str,
        *,
        dense_until: int | None = None,
        sparse_until: int | None = None,
        path: str | None = None,
    ) -> Tensor:
        """Logits ``[B, T, V]`` of a mixed pass over token ids ``[B, T]``, or over a text.

        Args:
            dense_until: dense up to this bridge, sparse from there on.
            sparse_until: sparse up to this bridge, dense from there on.
            path: any mixed path, such as ``"D0-S3-D8"`` (numbers are bridges).
        """
        if sum(x is not None for x in (dense_until, sparse_until, path)) != 1:
            raise BridgesError("Give exactly one of dense_until, sparse_until and path.")
        if isinstance(ids, str):
            ids = self._ids(ids)
        if path is not None:
            mixed = MixedPath.parse(path)
        else:
            mixed = MixedPath("D", (dense_until,)) if dense_until is not None else MixedPath("S", (sparse_until,))  # type: ignore[arg-type]
        return path_logits(mixed, self.dense, self.sparse, self.bridges, ids)

    def _ids(self, text: str) -> Tensor:
        """Token ids ``[1, T]`` of a text behind the token that all begin with.

        Raises:
            BridgesError: the run's models are narrowed to a vocabulary that the text goes beyond.
        """
        lead = leading_token(self.tokenizer)
        ids = ([] if lead is None else [lead]) + self.tokenizer(text, add_special_tokens=False)["input_ids"]
        known = vocabulary_size(self.tokenizer)
        if known is not None and (outside := [i for i in ids if i >= known]):
            raise BridgesError(
                f"{self.tokenizer.decode(outside[:1])!r} is not among the {known:,} tokens that this narrow run knows: "
                "those of its prompts. Ask with such prompts (run.prompts), or train with data.vocabulary=all."
            )
        return torch.tensor([ids])

    @property
    def behaviours(self) -> list[str]:
        """The names of the behaviours that the run measured."""
        return list(self.table("suite")["behaviour"])

    def _one(self, name: str, behaviour: str) -> pd.DataFrame:
        """A behaviour's rows of a table."""
        frame = self.table(name)
        mine = frame[frame["behaviour"] == behaviour]
        if mine.empty and behaviour not in self.behaviours:
            raise BridgesError(
                f"{self.folder.path} has no behaviour {behaviour!r}. {nearest(behaviour, self.behaviours)}"
            )
        return mine.reset_index(drop=True)

    def verdict(self, behaviour: str) -> Verdict:
        """What the run says of a behaviour: the answer, why, and every criterion of its claims."""
        rows = self._one("verdicts", behaviour)
        return Verdict({str(k): v for k, v in rows.iloc[0].items()}, self._one("claims", behaviour))

    def prompts(self, behaviour: str, split: str = "heldout", count: int = 8) -> EncodedPairs:
        """Prompt pairs of a behaviour: ``.ids [n, 2, T]``, ``.candidates [n, 2]``, and as text ``.pairs``.

        Args:
            split: ``heldout``, ``train`` or ``reach``. count: how many at most.
        """
        config = self.config
        known = select_behaviours(config.behaviours, self.tokenizer)
        if behaviour not in known:
            raise BridgesError(f"{self.folder.path} has no behaviour {behaviour!r}. {nearest(behaviour, known)}")
        found = express(known[behaviour], self.tokenizer, config.behaviours.pairs, config.seed)
        pairs = {"train": found.train, "heldout": found.heldout, "reach": found.reach}.get(split)
        if pairs is None:
            raise BridgesError(f"{behaviour!r} has no prompts of the split {split!r}: train, heldout or reach.")
        return pairs.take(range(min(count, len(pairs))))

    @torch.no_grad()
    def steer(self, behaviour: str, pairs: EncodedPairs | None = None, strength: float = 1.0) -> pd.DataFrame:
        """Add what the sparse circuit computes differently on the other prompt of each pair to the dense model, at
        shared positions of the selected bridge.

        Args:
            behaviour: whose circuit. pairs: prompts (default: some held-out ones). strength: factor on the change.

        Returns:
            one row a prompt: its text, the dense model's probability of the other prompt's answer before and after.
        """
        bridge = self.verdict(behaviour).row["bridge"]
        if pd.isna(bridge):
            raise BridgesError(f"No bridge was selected for {behaviour!r}: {self.verdict(behaviour).row['reason']}.")
        i, pairs = int(bridge), self.prompts(behaviour) if pairs is None else pairs
        context = BridgeContext(self.dense, self.sparse, self.bridges)
        batch = context.batch(pairs)
        with only(self.sparse, self.circuit(behaviour).circuit):
            h = self.sparse.run_segment(self.sparse.embed(batch.some.ids), 0, self.bridges.pairs[i].sparse)
        change = strength * map_through_bridge(self.bridges[i], batch.exchange(h))
        chances = context.dense_logits(batch, [(i, 0 * change), (i, change)]).softmax(-1)
        other = chances.gather(-1, batch.some.choice[:, 1:].expand(2, -1, -1))[..., 0]
        prompts = [text for pair in pairs.pairs for text in (pair.clean, pair.counterfactual)]
        return pd.DataFrame({"prompt": prompts, "before": other[0].tolist(), "after": other[1].tolist()})

    def circuit(self, behaviour: str, model: str = "sparse", allow_missed: bool = False) -> RunCircuit:
        """The circuit of a behaviour.

        Args:
            behaviour: its name. model: ``sparse`` or ``dense``. allow_missed: also one that missed its target.

        Raises:
            BridgesError: the run has searched no such circuit.
            CheckpointError: it was searched for and did not reach its target.
        """
        if model not in STACKS:
            raise BridgesError(f"There is no model {model!r}. {nearest(model, STACKS)}")
        circuits = self.table("circuits")
        learned = circuits[(circuits["model"] == model) & (circuits["method"] == self.config.circuits.method)]
        row = learned[learned["behaviour"] == behaviour]
        if row.empty:
            searched = sorted(learned["behaviour"])
            known = nearest(behaviour, searched) if searched else "None was searched for."
            raise BridgesError(f"{self.folder.path} has no {model} circuit of {behaviour!r}. {known}")
        if not bool(row["reached"].iloc[0]) and not allow_missed:
            raise CheckpointError(
                f"The {model} model's circuit of {behaviour!r} missed its target: {row['train_loss'].iloc[0]:.3f} with "
                f"{row['nodes'].iloc[0]} of {row['total_nodes'].iloc[0]} nodes, {row['target'].iloc[0]:g} wanted. "
                "allow_missed=True gives it all the same."
            )
        circuit = Circuit.load(circuit_file(self.folder.path, behaviour, model))
        tables = {}
        for name in ("nodes", "edges", "activations"):
            frame = self.table(name)
            mine = (frame["behaviour"] == behaviour) & (frame["model"] == model)
            tables[name] = frame[mine].reset_index(drop=True)
        names, nodes = read_names(self.folder.path), tables["nodes"]
        keys = list(zip(nodes["point"], nodes["channel"], strict=True))
        nodes["name"] = [names.of(point, channel, model) for point, channel in keys]
        nodes["group"] = [names.group(point, channel, model) for point, channel in keys]
        return RunCircuit(self, circuit, nodes, tables["edges"], tables["activations"])

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables, such as ``"sites"``."""
        return read_table(self.folder.path, name)


def load(source: str | Path, allow_changed: bool = False) -> Run:
    """Open a run.

    Args:
        source: a run folder, or the Hub id (``user/name``) of one that was pushed there.
        allow_changed: go on where the run's dense model or text is no longer what it was; otherwise that is an error
            where they are first asked for.

    Raises:
        CheckpointError: it is no run.
        HubError: it is no folder here, and the Hub cannot be reached or has no such run.
    """
    if not str(source).strip():
        raise CheckpointError("An empty text names no run. Give a path such as runs/<folder>.")
    source = Path(source).expanduser() if str(source).startswith("~") else source
    if Path(source).exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "runs/")):
        return Run(source, allow_changed)
    # Not at the top: the Hub's client is slow to import.
    from bridges.interop.hub import fetch

    return Run(fetch(str(source)), allow_changed)
