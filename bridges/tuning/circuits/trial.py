"""One trial of a study: searches with its settings, and what the circuits they find are worth."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import count_edges
from bridges.circuits.search.search import find_circuit
from bridges.circuits.weights import edge_matrices
from bridges.config.search import CircuitSettings
from bridges.errors import DivergenceError
from bridges.stack import ResidualStack
from bridges.training.precision import autocast, resolve_precision
from bridges.tuning.optuna_study import was_killed


def score(size: int, reached: bool, loss: float, target: float, whole: int) -> float:
    """What one circuit is worth; less is better.

    Args:
        size: its edges (or nodes). whole: those of the whole stack.

    Returns:
        log10 of its size where it reached the target. Elsewhere log10 of the whole stack's size and the nats by which
        it missed, so that any circuit that reaches beats any that does not, and these stand in the order of their loss.
    """
    return math.log10(max(1, size)) if reached else math.log10(max(1, whole)) + max(0.0, loss - target)


@dataclass(frozen=True)
class Ended:
    """How a trial ended: its state, one of `STATES`, and its value where that is ``complete``."""

    state: str
    value: float | None = None


class Objective:
    """Searches one trial's behaviours; called with a stack that is the caller's alone and an Optuna trial."""

    def __init__(
        self,
        optuna: Any,
        stack: ResidualStack,
        tasks: Mapping[str, EncodedPairs],
        reference: Mapping[str, Tensor],
        settings: CircuitSettings,
        seed: int,
        startup: int,
        model: str,
        text: Tensor | None = None,
    ):
        self.optuna, self.tasks, self.reference, self.settings = optuna, tasks, reference, settings
        self.seed, self.model, self.text, self.whole = seed, model, text, whole_size(stack, settings)
        self.median = optuna.pruners.MedianPruner(n_startup_trials=startup)
        self.stopped = threading.Event()
        self.known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def remember(self, study: Any) -> None:
        """Take over what trials that a kill ended had found: the same settings come again and need not be searched."""
        for trial in study.get_trials(deepcopy=False):
            if was_killed(trial):
                for row in trial.user_attrs.get("found", []):
                    self.known[(row["behaviour"], *sorted(trial.params.items()))] = row

    def __call__(self, stack: ResidualStack, trial: Any) -> Ended:
        found: list[dict[str, Any]] = []
        try:
            settings = tried(self.settings, trial.params)
            for step, (name, encoded) in enumerate(self.tasks.items()):
                if self.stopped.is_set():
                    raise Stopped
                known = self.known.get((name, *sorted(trial.params.items())))
                found.append(known or self.search(stack, name, encoded, settings))
                trial.set_user_attr("found", found)
                mean = sum(row["score"] for row in found) / len(found)
                trial.report(mean, step)
                if step + 1 < len(self.tasks) and self.should_stop(trial.study, step, mean):
                    return Ended("pruned")
        except Exception as error:
            # One bad choice of settings, a NaN or a full memory, says nothing against the next.
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            return Ended("failed")
        return Ended("complete", mean)

    def search(
        self, stack: ResidualStack, name: str, encoded: EncodedPairs, settings: CircuitSettings
    ) -> dict[str, Any]:
        """One search: its row of `SEARCHES` without what all rows of a trial share, and its seconds."""
        started = time.perf_counter()
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        with autocast(resolve_precision("auto", device), device):
            circuit = find_circuit(stack, encoded, self.reference, settings, self.seed, self.model, self.text)
        loss = float(circuit.train_loss)
        if not math.isfinite(loss):
            raise DivergenceError(f"{name}: the circuit's loss is {loss}. Try smaller values of lr and penalty.")
        nodes = int(sum(kept.sum() for kept in circuit.nodes.values()))
        edges = count_edges(stack, circuit).inside if settings.edges else None
        reached = bool(circuit.reached)
        size = nodes if edges is None else edges
        return {
            "behaviour": name,
            "nodes": nodes,
            "edges": edges,
            "reached": reached,
            "train_loss": loss,
            "score": score(size, reached, loss, settings.target, self.whole),
            "seconds": time.perf_counter() - started,
        }

    def should_stop(self, study: Any, step: int, mean: float) -> bool:
        """Whether the mean so far is above the median of complete trials at the same behaviour.

        Optuna's pruner would take a trial's best mean so far, which suits a loss that falls; here every step is another
        behaviour, and an easy first one would save every trial. So it is shown this step alone.
        """
        running = self.optuna.trial.TrialState.RUNNING
        now = self.optuna.trial.create_trial(state=running, intermediate_values={step: mean})
        return bool(self.median.prune(study, now))


class Stopped(BaseException):
    """The study is being interrupted; what is left of this trial is not wanted."""


def whole_size(stack: ResidualStack, settings: CircuitSettings) -> int:
    """Edges inside the blocks of a whole stack, or its nodes where edges are off.

    Raises:
        BridgesError: the edges of this stack cannot be listed.
    """
    widths = stack.nodes.widths
    if not settings.edges:
        return sum(widths.values())
    inside = [w for w in edge_matrices(stack) if w.source in widths and w.target in widths]
    return sum(int((w.weight != 0).sum()) for w in inside)


def tried(settings: CircuitSettings, params: Mapping[str, float]) -> CircuitSettings:
    """A trial's settings, to three digits, so that what is printed is what was tried."""
    rounded: dict[str, Any] = {name: float(f"{value:.3g}") for name, value in params.items()}
    return replace(settings, **rounded)
