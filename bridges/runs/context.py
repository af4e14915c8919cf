"""What the stages of a run work on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from bridges.behaviours.pair import Behaviour
from bridges.bridge import Bridges, fit_ridge
from bridges.circuits.ablation import node_means
from bridges.circuits.activations import Peaks
from bridges.circuits.bridge_context import BridgeContext, device_of
from bridges.circuits.controls import Null
from bridges.circuits.controls.null_searches import shuffled_model
from bridges.config import Config
from bridges.data.blocks import TokenBlocks
from bridges.dense import DenseStack
from bridges.runs.initialise import FULL_BIGRAM_LIMIT, UNTRAINED_SEED, Start, fit_to_text
from bridges.runs.sources import select_behaviours
from bridges.sparse import SparseTransformer
from bridges.stack import ResidualStack
from bridges.storage.folder import RunFolder
from bridges.storage.workers import worker_count
from bridges.training.precision import autocast, resolve_precision
from bridges.training.refit import stream_pairs

# An offset that keeps the shuffled model's draws apart from the searches'.
NULL_SEED = 1000
_BATCH = 8


@dataclass
class RunContext:
    """A run's models, text and settings, and what is computed from them once.

    Attributes:
        config: the settings. folder: of the run. accelerator: device and processes.
        dense, sparse, bridges: the models. data: the run's text. tokenizer: of both stacks.
        start: what training starts from. say: where progress is told.
        shared: what has been computed; copies for workers share it.
    """

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
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def stacks(self) -> dict[str, ResidualStack]:
        """The stacks by name."""
        return {"sparse": self.sparse, "dense": self.dense}

    def autocast(self) -> AbstractContextManager:
        """The precision that training had."""
        return autocast(resolve_precision(self.config.train.precision, self.device), self.device)

    def copy(self) -> RunContext:
        """The same with stacks of its own: a search intervenes in a stack, and two in one would meet."""
        dense, sparse = copy.deepcopy(self.dense), copy.deepcopy(self.sparse)
        return replace(self, dense=dense, sparse=sparse)

    def halt(self) -> None:
        """Stop what is going on in its stacks."""
        for stack in self.stacks.values():
            stack.nodes.halt()

    def workers(self, count: int) -> list[RunContext]:
        """Contexts for as many workers as there are behaviours, processor threads and memory for."""
        count = self.worker_count(count)
        return [self] if count == 1 else [self.copy() for _ in range(count)]

    def worker_count(self, count: int) -> int:
        """How many of them."""
        return max(1, min(worker_count(self.config.circuits.workers, self.stacks), count))

    def fit_to_text(self) -> None:
        """What the first step needs to have measured on text."""
        fit_to_text(self.config, self.start, self.dense, self.sparse, self.bridges, self.data, self.device)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def text(self, split: str, tokens: int) -> Tensor:
        """At least one block and about so many tokens of a split, ids ``[n, context]``."""
        return self.data.take(split, max(1, tokens // self.data.context))

    def rows(self, count: int) -> int:
        """So many rows of ``data.context`` tokens of ordinary text, in rows of a narrow text, which are shorter."""
        return max(1, round(count * self.config.data.context / self.data.mean_length))

    def chunks(self, split: str, tokens: int) -> list[Tensor]:
        """About so many tokens of a split without padding, in batches of rows of one length."""
        return self.data.chunks(split, max(1, round(tokens / self.data.mean_length)), self.rows(_BATCH))

    def _batches(self, stack: ResidualStack) -> list[Tensor]:
        text = self.chunks("train", self.config.circuits.reference_tokens)
        return [ids.to(device_of(stack)) for ids in text]

    @property
    def behaviours(self) -> dict[str, Behaviour]:
        """The behaviours that the settings name."""
        return self._once("behaviours", lambda: select_behaviours(self.config.behaviours, self.tokenizer))

    @property
    def bigram(self) -> Tensor | None:
        """Log-probabilities ``[V, V]`` of a bigram table; None where the vocabulary is too large for one."""
        if self.dense.vocab_size > FULL_BIGRAM_LIMIT:
            return None
        return self._once("bigram", lambda: self.data.bigram(self.dense.vocab_size))

    def random_bridges(self, seed: int = 0) -> Bridges:
        """Random bridges of the trained ones' shape, means, scales and constant prefix."""
        return self.bridges.like(seed).eval().requires_grad_(False)

    @property
    def untrained(self) -> Bridges:
        """Random bridges, as a null."""
        return self._once("untrained", lambda: self.random_bridges(self.config.seed + UNTRAINED_SEED))

    @property
    def ridge(self) -> Bridges:
        """Bridges by closed-form regression between the two finished models' streams."""
        return self._once("ridge", self._fit_ridge)

    def _fit_ridge(self) -> Bridges:
        config, ridge = self.config, self.random_bridges()
        tokens, batch = config.eval.ridge_tokens, config.eval.batch
        fit_ridge(
            ridge,
            stream_pairs(self.dense, self.sparse.run, self.data, tokens, self.rows(batch), self.device),
            config.bridge.ridge,
        )
        return ridge

    @property
    def bridge_context(self) -> BridgeContext:
        """Both models and the bridges, untrained ones among them."""
        return BridgeContext(self.dense, self.sparse, self.bridges, self.untrained)

    def means(self, model: str) -> dict[str, Tensor]:
        """Means of every node of a stack over training text, ``{point: [channels]}``."""
        stack = self.stacks[model]
        return self._once(f"means {model}", lambda: node_means(stack, self._batches(stack)))

    @property
    def stream_means(self) -> Tensor:
        """Mean of the sparse stream over training text at every bridge, ``[bridges, d_sparse]`` in fp32."""
        return self._once("stream means", self._stream_means)

    @torch.no_grad()
    def _stream_means(self) -> Tensor:
        total = torch.zeros(len(self.bridges), self.sparse.d_model, dtype=torch.float64)
        count = 0
        for ids in self._batches(self.sparse):
            sites = self.sparse.run(ids).sites
            count += ids.numel()
            for i, pair in enumerate(self.bridges.pairs):
                total[i] += sites[pair.sparse].double().sum((0, 1)).cpu()
        return (total / count).float()

    @property
    def null(self) -> Null:
        """The sparse model with shuffled weights."""
        make = lambda: shuffled_model(self.sparse, self._batches(self.sparse), self.config.seed + NULL_SEED)  # noqa: E731
        return self._once("null", make)

    @property
    def search_text(self) -> Tensor:
        """Training text that ablated nodes are resampled from."""
        return self.text("train", self.config.circuits.reference_tokens)

    @property
    def heldout_text(self) -> Tensor:
        return self.text("test", self.config.circuits.activation_tokens)

    @property
    def peaks(self) -> Peaks:
        """Where the sparse model's nodes are most active in held-out text."""
        count, text = self.config.circuits.top_activations, self.heldout_text
        lengths = self.data.lengths_of("test", len(text))
        return self._once("peaks", lambda: Peaks.find(self.sparse, text, count, _BATCH, lengths))

    def bar(self, total: int, name: str, unit: str = "behaviour") -> tqdm:
        """A progress bar over behaviours, or pieces of them."""
        return tqdm(total=total, unit=unit, desc=name, dynamic_ncols=True, mininterval=1.0)
