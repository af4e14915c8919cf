"""A finished run in a notebook: ``run = bridges.load("runs/…")``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from bridges.bridge import Bridges
from bridges.circuits.circuit import Circuit, ablated, circuit_logits
from bridges.circuits.draw import draw_circuit
from bridges.circuits.stage import circuit_file
from bridges.config import STACKS
from bridges.dense import DenseStack, load_dense
from bridges.errors import BridgesError, CheckpointError, nearest
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import path_logits
from bridges.sparse import SparseTransformer
from bridges.stack import ResidualStack
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunCircuit:
    """A circuit of a finished run, with the model it was cut out of.

    Attributes:
        circuit: its nodes, weights and calibration (`bridges.circuits.Circuit`).
        nodes, activations: its rows of the tables of those names.
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


class Run:
    """One run: its models, its tables and its mixed passes. Models are loaded when first asked for.

    Args:
        path: the run's folder.
    """

    def __init__(self, path: str | Path):
        self.folder = RunFolder(path)
        self.config = self.folder.config

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, {self.folder.status['status']})"

    @cached_property
    def _dense_and_tokenizer(self):
        m = self.config.model
        dtype = torch.bfloat16 if m.dtype == "bf16" else torch.float32
        return load_dense(m.name, gguf_file=m.gguf_file, revision=m.revision, dtype=dtype)

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
        return SparseTransformer.from_pretrained(self.folder.model).eval()

    @cached_property
    def bridges(self) -> Bridges:
        """The trained bridges."""
        return Bridges.from_pretrained(self.folder.bridges).eval()

    @torch.no_grad()
    def hybrid(
        self, ids: Tensor, *, dense_until: int | None = None, sparse_until: int | None = None, path: str | None = None
    ) -> Tensor:
        """Logits ``[B, T, V]`` of a mixed pass over token ids ``[B, T]``.

        Args:
            dense_until: dense up to this bridge, sparse from there on.
            sparse_until: sparse up to this bridge, dense from there on.
            path: any mixed path, such as ``"D0-S3-D8"`` (numbers are bridges).
        """
        if sum(x is not None for x in (dense_until, sparse_until, path)) != 1:
            raise BridgesError("Give exactly one of dense_until, sparse_until and path.")
        if path is not None:
            mixed = MixedPath.parse(path)
        else:
            mixed = MixedPath("D", (dense_until,)) if dense_until is not None else MixedPath("S", (sparse_until,))  # type: ignore[arg-type]
        return path_logits(mixed, self.dense, self.sparse, self.bridges, ids)

    def circuit(self, behaviour: str, model: str = "sparse") -> RunCircuit:
        """The circuit of a behaviour.

        Args:
            behaviour: its name. model: ``sparse`` or ``dense``.

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
        if not bool(row["reached"].iloc[0]):
            raise CheckpointError(
                f"The {model} model did not reach the target on {behaviour!r}: loss {row['train_loss'].iloc[0]:.3f} "
                f"with {row['nodes'].iloc[0]} of {row['total_nodes'].iloc[0]} nodes, {row['target'].iloc[0]:g} wanted."
            )
        circuit = Circuit.load(circuit_file(self.folder.path, behaviour, model))
        tables = {}
        for name in ("nodes", "edges", "activations"):
            frame = self.table(name)
            mine = (frame["behaviour"] == behaviour) & (frame["model"] == model)
            tables[name] = frame[mine].reset_index(drop=True)
        return RunCircuit(self, circuit, tables["nodes"], tables["edges"], tables["activations"])

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables, such as ``"sites"``."""
        return read_table(self.folder.path, name)


def load(source: str | Path) -> Run:
    """Open a run.

    Args:
        source: a run folder, or the Hub id of an uploaded one.

    Raises:
        CheckpointError: it is neither.
    """
    if Path(source).exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "runs/")):
        return Run(source)
    from huggingface_hub import snapshot_download

    try:
        return Run(snapshot_download(str(source)))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{source} is neither a run folder here nor a run on the Hub ({type(error).__name__}). Give a path such as "
            "runs/<folder>."
        ) from error
