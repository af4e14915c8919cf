"""What every control gets and gives: one circuit under examination, and rows of table ``controls``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import Circuit
from bridges.circuits.search.search import find_circuit
from bridges.circuits.task import Prompts, prompts
from bridges.config import ControlsConfig
from bridges.config.search import CircuitSettings
from bridges.stack import ResidualStack

Row = dict[str, Any]


@dataclass
class Null:
    """A model of the same statistics that has learned nothing, and the means of its nodes over the same text."""

    stack: ResidualStack
    reference: Mapping[str, Tensor]


@dataclass
class Case:
    """One circuit under examination.

    Attributes:
        stack: the model it was cut out of. circuit: what was found.
        train, heldout: the behaviour's pairs; the circuit has seen the first only.
        reference: means of nodes over text, ``{point: [channels]}``.
        text: held-out token ids ``[n, context]`` that resampled values come from.
        config: sizes and bars of the controls. settings: of the search that found the circuit.
        null: makes the model with shuffled weights; called at most once.
        seed: of every draw.
        search_text: training token ids that the searches of other circuits resample removed nodes from.
        by_nodes: the circuit before its edges were looked at; where the searches of other circuits are the one that
            found it, it is the first of `repeats`.
    """

    stack: ResidualStack
    circuit: Circuit
    train: EncodedPairs
    heldout: EncodedPairs
    reference: Mapping[str, Tensor]
    text: Tensor
    config: ControlsConfig
    settings: CircuitSettings
    null: Callable[[], Null]
    seed: int = 0
    search_text: Tensor | None = None
    by_nodes: Circuit | None = None

    @property
    def device(self) -> torch.device:
        return next(self.stack.parameters()).device  # type: ignore[attr-defined]

    def _prompts(self, count: int) -> Prompts:
        return prompts(self.heldout.take(range(min(count, len(self.heldout)))), self.device)

    @cached_property
    def prompts(self) -> Prompts:
        """Held-out prompts of the controls that run the circuit a few times."""
        return self._prompts(self.config.pairs)

    @cached_property
    def few(self) -> Prompts:
        """Held-out prompts of the controls that run many node sets."""
        return self._prompts(self.config.set_pairs)

    def generator(self, name: str) -> torch.Generator:
        """Random state of one control of this behaviour: none of them changes what another one draws."""
        key = f"{self.seed} {self.circuit.behaviour} {self.circuit.model} {name}"
        digest = hashlib.blake2b(key.encode(), digest_size=6).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    @property
    def twin_pairs(self) -> int:
        """Training pairs that the circuits of the nulls, and those they are compared with, are measured on."""
        return min(self.config.twin_pairs, len(self.train))

    @property
    def twin_settings(self) -> CircuitSettings:
        """What real and null circuits that are compared share: edges are left alone, and no search gives up because
        the whole model fails, since a part of it may fit labels that the whole does not."""
        return self._unbound(self.config.twin_steps, self.twin_pairs)

    def _unbound(self, steps: int, pairs: int) -> CircuitSettings:
        return replace(self.settings, edges=False, give_up=math.inf, steps=steps, pairs=pairs)

    def search(self, pairs: EncodedPairs, seed: int) -> Circuit:
        """One search at `twin_settings`."""
        return find_circuit(
            self.stack, pairs, self.reference, self.twin_settings, seed, self.circuit.model, self.search_text
        )

    def null_search(self, pairs: EncodedPairs, null: Null | None = None) -> Circuit:
        """One search for what should not be there, in the model or in a null: at `twin_settings`, but with as many
        nodes as it wants, so that only its loss gives it up after half of its steps (``abandon``)."""
        stack, reference = (self.stack, self.reference) if null is None else (null.stack, null.reference)
        settings = replace(self.twin_settings, largest=1.0)
        return find_circuit(stack, pairs, reference, settings, self.seed, self.circuit.model, self.search_text)

    @cached_property
    def repeats(self) -> list[Circuit]:
        """The behaviour's own circuits at those settings, one per seed."""
        own = self._unbound(self.settings.steps, min(self.settings.pairs, len(self.train)))
        known = self.by_nodes if own == self.twin_settings else None
        first = self.search(self.train, self.seed) if known is None else known
        return [first, *(self.search(self.train, self.seed + i) for i in range(1, self.config.seeds))]

    @property
    def typical_size(self) -> float:
        """Median nodes of `repeats` that reach the target; infinite where fewer than half of them do."""
        sizes = [float(c.size) if c.reached else math.inf for c in self.repeats]
        return sorted(sizes)[len(sizes) // 2]

    def row(self, control: str, quantity: str, value: float, **more: Any) -> Row:
        """A row of table ``controls``; ``passed`` stands in the row that decides."""
        c = self.circuit
        row: Row = {"behaviour": c.behaviour, "model": c.model, "method": c.method, "seed": c.seed}
        row |= {"control": control, "split": "heldout", "ablation": c.ablation, "draw": 0, "size": c.size}
        row |= {"quantity": quantity, "value": float(value), "reference": math.nan, "threshold": math.nan}
        return row | {"passed": None, "n_pairs": len(self.prompts) // 2} | more


Control = Callable[[Case], list[Row]]
REGISTRY: dict[str, Control] = {}


def control(name: str) -> Callable[[Control], Control]:
    """Register a control under the name that settings and tables use."""

    def register(function: Control) -> Control:
        REGISTRY[name] = function
        return function

    return register


def accuracy(margins: Tensor) -> float:
    """Share of prompts decided rightly."""
    return float((margins > 0).float().mean())
