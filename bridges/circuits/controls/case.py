"""What every control gets and gives: one circuit under examination, and rows of table ``controls``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.ablation import node_values
from bridges.circuits.bootstrap import Estimate, Resampler, estimate
from bridges.circuits.bridge_context import BridgeContext, device_of
from bridges.circuits.circuit import Circuit, ablated, only
from bridges.circuits.search.search import find_circuit
from bridges.circuits.task import Prompts, logit_diff, prompts
from bridges.config import ControlsConfig
from bridges.config.search import CircuitSettings
from bridges.stack import ResidualStack

Row = dict[str, Any]
# No whole model is refused: a part of it may fit labels that the whole does not.
ANY_LOSS = 1e6
# Training pairs that an adversary selects its nodes on.
SHOWN = 24


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
        train, heldout: the behaviour's pairs; the circuit has seen the first only. reach: pairs of other frames, or
            None.
        reference: means of nodes over text, ``{point: [channels]}``.
        text: held-out token ids ``[n, context]`` that random text's values come from.
        config: sizes of the controls. settings: of the search that found the circuit.
        null: makes the model with shuffled weights; called at most once.
        seed: of every draw. bootstrap: resamples behind every interval.
        context: the bridges, for the searches of other circuits; None where there are none.
        search_text: training token ids that the searches of other circuits resample ablated nodes from.
    """

    stack: ResidualStack
    circuit: Circuit
    train: EncodedPairs
    heldout: EncodedPairs
    reach: EncodedPairs | None
    reference: Mapping[str, Tensor]
    text: Tensor
    config: ControlsConfig
    settings: CircuitSettings
    null: Callable[[], Null]
    seed: int = 0
    bootstrap: int = 2000
    context: BridgeContext | None = None
    search_text: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return device_of(self.stack)

    @cached_property
    def pairs(self) -> EncodedPairs:
        """Held-out pairs of every control."""
        return self.heldout.take(range(min(self.config.pairs, len(self.heldout))))

    @cached_property
    def prompts(self) -> Prompts:
        """Their prompts."""
        return prompts(self.pairs, self.device)

    @cached_property
    def shown(self) -> Prompts:
        """Prompts of training pairs, which choices may be made on."""
        return prompts(self.train.take(range(min(SHOWN, len(self.train)))), self.device)

    @cached_property
    def resampler(self) -> Resampler:
        """Resamples of frames and held-out pairs."""
        return Resampler(len(self.pairs), self.bootstrap, self.seed, tuple(p.template for p in self.pairs.pairs))

    @cached_property
    def model_diff(self) -> Tensor:
        """Logit differences of the whole model on the held-out prompts, ``[2n]``."""
        with torch.no_grad():
            return logit_diff(self.stack, self.prompts)

    def alone(self, values: Mapping[str, Tensor] | None = None, circuit: Circuit | None = None) -> Tensor:
        """Logit differences of the circuit alone on the held-out prompts, ``[2n]``.

        Args:
            values: of ablated nodes, ``{point: [2n, T, channels]}``; None: their means.
        """
        with torch.no_grad(), only(self.stack, circuit or self.circuit, values):
            return logit_diff(self.stack, self.prompts)

    def without(self) -> Tensor:
        """Logit differences of the whole model without the circuit, ``[2n]``."""
        with torch.no_grad(), ablated(self.stack, self.circuit):
            return logit_diff(self.stack, self.prompts)

    def accuracy(self, diffs: Tensor) -> Estimate:
        """Share of prompts decided rightly, with its interval; ``[…, 2n]``, the mean over what stands before."""
        return self.mean((diffs > 0).double())

    def mean(self, values: Tensor) -> Estimate:
        """The mean over prompts ``[…, 2n]`` with its interval."""
        each = values.double().cpu().flatten(0, -2) if values.ndim > 1 else values.double().cpu()[None]
        per_pair = each.mean(0).view(-1, 2).mean(1).numpy()
        return estimate(self.resampler.ratio(per_pair, np.ones(len(per_pair))))

    def node_values(self, ids: Tensor) -> dict[str, Tensor]:
        """Every node of the whole model over token ids ``[B, T]``."""
        return node_values(self.stack, ids)

    def generator(self, name: str) -> torch.Generator:
        """Random state of one control of this behaviour: none of them changes what another one draws."""
        key = f"{self.seed} {self.circuit.behaviour} {self.circuit.model} {name}"
        digest = hashlib.blake2b(key.encode(), digest_size=6).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    def search(self, pairs: EncodedPairs, seed: int | None = None, carried: bool = True) -> Circuit:
        """Another circuit of this stack, searched for in the same way.

        Args:
            carried: with the carried term, where the circuit had one; a meaningless task moves nothing.
        """
        return find_circuit(
            self.stack,
            pairs,
            self.reference,
            self.settings,
            self.seed if seed is None else seed,
            self.circuit.model,
            self.search_text,
            self.context if carried else None,
        )

    def search_labels(self, pairs: EncodedPairs, null: Null | None = None) -> Circuit:
        """A circuit that fits the labels of some pairs, whatever the whole model answers: two-way cross-entropy to the
        published target, by the same steps, in the model or in a null."""
        stack, reference = (self.stack, self.reference) if null is None else (null.stack, null.reference)
        settings = replace(self.settings, objective="task_loss", target=0.15, max_model_loss=ANY_LOSS)
        return find_circuit(stack, pairs, reference, settings, self.seed, self.circuit.model, self.search_text)

    def row(self, control: str, quantity: str, value: float | Estimate, **more: Any) -> Row:
        """A row of table ``controls``; the one with ``decides`` is what the verdict reads."""
        c = self.circuit
        found = value if isinstance(value, Estimate) else Estimate(float(value), math.nan, math.nan)
        row: Row = {"behaviour": c.behaviour, "model": c.model, "method": c.method, "seed": c.seed}
        row |= {"control": control, "split": "heldout", "ablation": c.ablation, "draw": 0, "size": c.size}
        row |= {"quantity": quantity} | found.columns()
        return row | {"reference": math.nan, "decides": False, "n_pairs": len(self.pairs)} | more


Control = Callable[[Case], list[Row]]
REGISTRY: dict[str, Control] = {}


def control(name: str) -> Callable[[Control], Control]:
    """Register a control under the name that settings and tables use."""

    def register(function: Control) -> Control:
        REGISTRY[name] = function
        return function

    return register
