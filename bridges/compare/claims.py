"""The criteria of a verdict's claims, each held against its bar, from a run's tables alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bridges.config import VerdictConfig
from bridges.storage.tables import TABLES

Row = dict[Any, Any]
Tables = Mapping[str, pd.DataFrame]
NAN = float("nan")
READ = ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")

# Bars of the robustness line, which stands beside the verdict and decides nothing.
AGREEMENT, ADVERSARY, REST = 0.8, 0.5, 0.7
# A behaviour that a bigram table does so often hangs on its last token alone (chance is 0.5).
BIGRAM = 0.75


@dataclass(frozen=True)
class Criterion:
    """One number of one claim of one behaviour.

    Attributes:
        claim, name: where it belongs, and what it is called.
        value, low, high: the measurement with its 95 % interval; one without interval is compared as it is.
        bar: what it is held against. at_least: whether it has to reach the bar, or to stay under it.
        label: the criterion in two or three words. meaning: as a sentence.
        p_value, p_adjusted: of a test; it holds where the corrected p is at most ``alpha`` (then the bar's place).
        given: the state, where it does not follow from the interval.
    """

    claim: str
    name: str
    value: float
    bar: float
    at_least: bool
    label: str
    meaning: str
    low: float = NAN
    high: float = NAN
    p_value: float = NAN
    p_adjusted: float = NAN
    alpha: float = NAN
    given: str | None = None

    @property
    def state(self) -> str:
        """`held`, `missed`, `open` where the interval lies across the bar, or `not measured`."""
        if self.given is not None:
            return self.given
        if math.isnan(self.value):
            return "not measured"
        if not math.isnan(self.alpha):
            # A test that fails says that nothing was shown, not that there is nothing.
            if self.p_adjusted <= self.alpha:
                return "held"
            return "missed" if self.high < 0 or math.isnan(self.high) else "open"
        low, high = (self.value if math.isnan(end) else end for end in (self.low, self.high))
        if self.at_least:
            return "held" if low >= self.bar else "missed" if high < self.bar else "open"
        return "held" if high <= self.bar else "missed" if low > self.bar else "open"

    @property
    def short(self) -> str:
        """Value and bar in a few words, such as ``FVU 0.31 > 0.20``."""
        state = self.state
        if state == "not measured":
            return f"{self.label} not measured"
        shown = _figure(self.value)
        beyond = self.value < self.bar if self.at_least else self.value > self.bar
        if self.given == "held" and beyond:
            return f"{self.label} {shown} (aimed at {_figure(self.bar)})"
        if not math.isnan(self.alpha):
            return f"{self.label} by {shown}" + ("" if state == "held" else f" (p {self.p_adjusted:.2g})")
        if math.isnan(self.bar):
            return f"{self.label} {shown}"
        if state == "open":
            return f"{self.label} {shown} [{_figure(self.low)}, {_figure(self.high)}] straddles {_figure(self.bar)}"
        good = "≥" if self.at_least else "≤"
        bad = "<" if self.at_least else ">"
        return f"{self.label} {shown} {good if state == 'held' else bad} {_figure(self.bar)}"

    def row(self, behaviour: str) -> Row:
        """As table ``claims`` has it."""
        row: Row = {"behaviour": behaviour, "claim": self.claim, "criterion": self.name, "value": self.value}
        row |= {"value_low": self.low, "value_high": self.high, "bar": self.bar, "at_least": self.at_least}
        row |= {"state": self.state, "p_value": self.p_value, "p_adjusted": self.p_adjusted}
        return row | {"short": self.short, "meaning": self.meaning}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


def pick(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The rows with these values."""
    for column, value in where.items():
        if column not in frame:
            return frame.iloc[:0]
        frame = frame[frame[column] == value]
    return frame


def first(frame: pd.DataFrame, **where: Any) -> Row | None:
    """The first such row."""
    found = pick(frame, **where)
    return None if found.empty else found.iloc[0].to_dict()


def number(row: Row | None, column: str = "value") -> float:
    """A value of a row; NaN where there is none."""
    return NAN if row is None or pd.isna(row.get(column)) else float(row[column])


def interval(row: Row | None, name: str = "value") -> dict[str, Any]:
    """Value and interval of a row."""
    return {"value": number(row, name), "low": number(row, f"{name}_low"), "high": number(row, f"{name}_high")}


class Facts:
    """What the tables say about one behaviour."""

    def __init__(self, tables: Tables, name: str):
        of = {
            table: pick(tables.get(table, pd.DataFrame(columns=TABLES[table].names)), behaviour=name) for table in READ
        }
        self.suite = first(of["suite"])
        held = pick(of["behaviours"], split="heldout")
        self.models = {model: first(held, model=model) for model in ("dense", "sparse", "bigram")}
        learned = pick(of["circuits"], method="learned")
        self.circuit, self.dense_circuit = first(learned, model="sparse"), first(learned, model="dense")
        self.agreement, self.transfer = of["agreement"], of["transfer"]
        rows = pick(of["controls"], model="sparse", decides=True)
        self.controls = {(str(r["control"]), str(r["quantity"])): r for r in rows.to_dict("records")}
        self.ran = set(of["controls"]["control"]) if len(of["controls"]) else set()

    @property
    def reached(self) -> bool:
        """Whether a sparse circuit was found."""
        return self.circuit is not None and bool(self.circuit["reached"])

    def explains(self, quantity: str) -> dict[str, Any]:
        """What the circuit explains of its own model."""
        return interval(first(self.agreement, first="sparse", second="circuit", quantity=quantity))

    def moved(self, measurement: str, direction: str, quantity: str) -> Row | None:
        """A measurement at the selected bridge."""
        where = {"measurement": measurement, "direction": direction, "quantity": quantity, "selected": True}
        return first(self.transfer, **where)

    def control(self, name: str, quantity: str | None = None) -> Row | None:
        """The deciding row of a control."""
        found = [row for (control, q), row in self.controls.items() if control == name and quantity in (None, q)]
        return found[0] if found else None

    @property
    def dense_found(self) -> bool:
        """Whether a circuit of the dense model was found; the whole of it is none."""
        dense = self.dense_circuit
        return dense is not None and bool(dense["reached"]) and bool(dense["nodes"] < dense["total_nodes"])

    @property
    def best_ceiling(self) -> float:
        """What the dense model's own exchange moves at the inner bridge where it moves most."""
        rows = pick(self.transfer, measurement="interchange", direction="dense", quantity="share_moved")
        inner = rows[(rows["bridge"] > 0) & (rows["bridge"] < rows["bridge"].max())] if len(rows) else rows
        return float(inner["value"].max()) if len(inner) else NAN


def done(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """The dense model does it, and not by the last token alone."""
    shared, bigram = number(facts.suite, "shared_last"), number(facts.models["bigram"], "accuracy")
    return [
        Criterion(
            "done",
            "dense_accuracy",
            bar=config.dense_accuracy,
            at_least=True,
            label="dense accuracy",
            meaning="Share of held-out prompts that the dense model decides rightly.",
            **interval(facts.models["dense"], "accuracy"),
        ),
        Criterion(
            "done", "shared_last", shared, 1.0, True, "same last token",
            "Share of pairs whose prompts are equally long and end in the same token.",
        ),
        Criterion(
            "done", "bigram", bigram, BIGRAM, False, "bigram accuracy",
            "Share of held-out prompts that a bigram table decides rightly.",
            given="held" if math.isnan(bigram) else None,
        ),
    ]  # fmt: skip


def sufficient(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """The circuit alone explains the sparse model, which does what the dense one does; nothing is calibrated."""
    able = config.sparse_accuracy * number(facts.models["dense"], "accuracy")
    found = [
        Criterion(
            "sufficient",
            "sparse_accuracy",
            bar=able,
            at_least=True,
            label="sparse accuracy",
            meaning="Share of held-out prompts that the whole sparse model decides rightly.",
            **interval(facts.models["sparse"], "accuracy"),
        )
    ]
    label = "no circuit: FVU" if number(facts.circuit, "target") and not facts.reached else "training FVU"
    loss, target = number(facts.circuit, "train_loss"), number(facts.circuit, "target")
    if facts.circuit is not None and facts.circuit["objective"] == "task_loss":
        label = label.replace("FVU", "loss")
    given = None if facts.circuit is None else "held" if facts.reached else "missed"
    meaning = "What the circuit reaches on the pairs that it was searched on."
    found.append(Criterion("sufficient", "circuit_found", loss, target, False, label, meaning, given=given))
    faithful = facts.explains("faithfulness")
    for name, bar, at_least, short, meaning, values in (
        ("fvu", config.fvu, False, "FVU", "Variance of the sparse model's logit difference that the circuit leaves "
         "unexplained.", facts.explains("fvu")),
        ("circuit_accuracy", config.circuit_accuracy, True, "circuit accuracy",
         "Accuracy of the circuit alone, as a share of the sparse model's.", facts.explains("accuracy_share")),
        ("faithfulness", 1 - config.faithfulness, True, "f",
         "Mean logit difference of the circuit over the sparse model's.", faithful),
        ("overshoot", 1 + config.faithfulness, False, "f",
         "Mean logit difference of the circuit over the sparse model's: not too large either.", faithful),
    ):  # fmt: skip
        found.append(Criterion("sufficient", name, bar=bar, at_least=at_least, label=short, meaning=meaning, **values))
    return found


def necessary(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """The sparse model loses the behaviour without the circuit, more than without random nodes."""
    share = facts.control("necessity", "harmless_random_sets")
    return [
        Criterion(
            "necessary",
            "accuracy_without",
            bar=config.necessity,
            at_least=False,
            label="accuracy without it",
            meaning="Accuracy of the sparse model without the circuit (chance is 0.5).",
            **interval(facts.control("necessity", "accuracy_without")),
        ),
        Criterion(
            "necessary",
            "random_sets",
            bar=config.quantile,
            at_least=True,
            label="random sets do less harm:",
            meaning="Share of random node sets of the same size per kind and layer whose ablation does less harm.",
            **interval(share),
        ),
    ]


def small(facts: Facts) -> list[Criterion]:
    """The circuit has fewer edges than the dense model's own, and than that of a consistent meaningless task.

    The meaningless task asks for less. Where its circuit is no larger, the behaviour's own circuit by the same
    objective is compared instead.
    """
    edges = number(facts.circuit, "edges") if facts.reached else NAN
    dense = facts.dense_circuit
    dense_edges = number(dense, "edges") if facts.dense_found else NAN
    null = facts.control("consistent_labels", "null_edges")
    own = number(facts.control("consistent_labels", "own_edges"))
    alike = not math.isnan(own) and not math.isnan(edges)
    found = []
    for name, label, size, bar, searched, meaning in (
        ("dense_edges", "edges", edges, dense_edges, dense is not None,
         "Edges, against those of the dense model's own circuit, searched for in the same way."),
        ("consistent_edges", "edges to the same task loss" if alike else "edges", own if alike else edges, number(null),
         null is not None, "Edges, against those of a circuit for a consistent meaningless task on the same prompts."),
    ):  # fmt: skip
        given = "not measured" if math.isnan(edges) or not searched else None
        if given is None and math.isnan(bar):
            # That pruning solves no meaningless task speaks for the circuit; that it gets stuck in the dense model says
            # nothing.
            given = "held" if name == "consistent_edges" else "not measured"
        criterion = Criterion("small", name, size, bar, False, label, meaning, given=given)
        if criterion.state == "held" and size == bar:
            criterion = replace(criterion, given="missed")  # fewer, not as many
        found.append(criterion)
    return found


def same_computation(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """What the circuit computes moves the dense model, and the other way round, at shared positions."""
    ceiling = number(facts.moved("interchange", "dense", "share_moved"))
    if math.isnan(ceiling):
        best = facts.best_ceiling
        label, meaning = "no bridge: ceiling", "Share that the dense model's own exchange moves, at the best bridge."
        given = "not measured" if math.isnan(best) else "missed"
        return [Criterion("same computation", "ceiling", best, config.ceiling, True, label, meaning, given=given)]
    found = [
        Criterion(
            "same computation",
            "ceiling",
            bar=config.ceiling,
            at_least=True,
            label="ceiling",
            meaning="Share of the dense logit difference that the dense model's own exchange moves at the bridge.",
            **interval(facts.moved("interchange", "dense", "share_moved")),
        )
    ]
    for way, measurement, mover, words in (
        ("to_dense", "interchange", "circuit", ("share of ceiling moved", "circuit's change moves in the dense model")),
        ("to_sparse", "dense_to_sparse", "dense", ("share moved back", "dense model's change moves in the circuit")),
    ):
        found.append(
            Criterion(
                "same computation",
                f"share_{way}",
                bar=config.share_of_ceiling,
                at_least=True,
                label=words[0],
                meaning=f"What the {words[1]} at the bridge, as a share of the receiver's own exchange.",
                **interval(facts.moved(measurement, mover, "share_of_ceiling")),
            )
        )
        row = facts.moved(measurement, mover, "share_moved_minus_null")
        found.append(
            Criterion(
                "same computation",
                f"nulls_{way}",
                bar=0.0,
                at_least=True,
                label=f"{words[0]} beyond nulls",
                meaning=f"What the {words[1]} beyond the best null of equal length.",
                p_value=number(row, "p_value"),
                alpha=config.alpha,
                **interval(row),
            )
        )
    return found


def robustness(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """How the circuit stands what the claims do not ask of it: graded, and never decisive."""
    able = config.circuit_accuracy * number(facts.models["sparse"], "accuracy")
    found = []
    for name, bar, at_least, label, meaning in (
        ("resample", able, True, "resampled accuracy",
         "Accuracy of the circuit with all else at its values on other prompts of the behaviour."),
        ("random_text", able, True, "random text accuracy",
         "Accuracy of the circuit with all else at its values in random text."),
        ("interchange", AGREEMENT, True, "interchange agreement",
         "Share of prompts on which whole model and circuit favour the same answer after nodes were exchanged."),
        ("stochastic", able, True, "stochastic accuracy",
         "Least accuracy of the whole model with random shares of the other nodes ablated."),
        ("adversarial", ADVERSARY, False, "adversary",
         "Two-way loss after the flips of other nodes that do most harm, in nats."),
        ("seeds", REST, False, "other seed's rest",
         "Accuracy of one seed's circuit without the nodes of another's: near chance where they are one computation."),
        ("reach", config.fvu, False, "reach FVU", "Unexplained variance on frames that no search has seen."),
    ):  # fmt: skip
        values = interval(facts.control(name))
        found.append(Criterion("robustness", name, bar=bar, at_least=at_least, label=label, meaning=meaning, **values))
    return found
