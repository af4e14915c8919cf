"""The verdict: does the sparse circuit explain what the dense model does? Worked out from a run's tables alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bridges.compare.bootstrap import holm
from bridges.compare.transfer import NULLS
from bridges.config import CONTROLS, VerdictConfig
from bridges.storage.tables import TABLES

Row = dict[Any, Any]
Tables = Mapping[str, pd.DataFrame]
NAN = float("nan")
# Tests that are made once for every behaviour, and corrected for that.
TESTS = ("beats_nulls", "necessity")


@dataclass(frozen=True)
class Evidence:
    """One criterion of one behaviour.

    Attributes:
        criterion: its name. meaning: in words, with what is asked for.
        value, low, high: the measurement. threshold: the bar.
        passed: whether it was met. veto: whether failing it rules out ``reproduced`` and ``partial``.
        p_value: one-sided, of a test. p_adjusted: after Holm's correction.
        missing: what to say where there is no value.
    """

    criterion: str
    meaning: str
    value: float
    threshold: float
    passed: bool
    veto: bool = False
    low: float = NAN
    high: float = NAN
    p_value: float = NAN
    p_adjusted: float = NAN
    missing: str = "was not measured"

    def row(self, behaviour: str) -> Row:
        """As table ``evidence`` has it."""
        row: Row = {"behaviour": behaviour, "criterion": self.criterion, "value": self.value}
        row |= {"value_low": self.low, "value_high": self.high, "threshold": self.threshold, "passed": self.passed}
        row |= {"veto": self.veto, "p_value": self.p_value, "p_adjusted": self.p_adjusted, "meaning": self.meaning}
        return row

    def sentence(self) -> str:
        """What was measured against what was asked for."""
        if math.isnan(self.value):
            return f"{self.meaning} {self.missing}"
        ends = "" if math.isnan(self.low) else f" [{self.low:.3g}, {self.high:.3g}]"
        bar = "" if math.isnan(self.threshold) else f"bar {self.threshold:.3g}"
        p = "" if math.isnan(self.p_adjusted) else f"corrected p {self.p_adjusted:.2g}"
        beside = ", ".join(part for part in (bar, p) if part)
        return f"{self.meaning} is {self.value:.3g}{ends}" + (f" ({beside})" if beside else "")


def _pick(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for column, value in where.items():
        if column not in frame:
            return frame.iloc[:0]
        frame = frame[frame[column] == value]
    return frame


def _first(frame: pd.DataFrame, **where: Any) -> Row | None:
    found = _pick(frame, **where)
    return None if found.empty else found.iloc[0].to_dict()


def _number(row: Row | None, column: str = "value") -> float:
    return NAN if row is None or pd.isna(row.get(column)) else float(row[column])


def _interval(row: Row | None) -> dict[str, Any]:
    return {"value": _number(row), "low": _number(row, "value_low"), "high": _number(row, "value_high")}


class _Case:
    """What the tables say about one behaviour."""

    def __init__(self, tables: Tables, name: str, config: VerdictConfig):
        self.config = config
        self.of = {
            table: _pick(tables.get(table, pd.DataFrame(columns=TABLES[table].names)), behaviour=name)
            for table in ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")
        }
        self.suite = _first(self.of["suite"])
        self.dense = self._able("dense")
        self.sparse = self._able("sparse")
        self.circuit = _first(self.of["circuits"], model="sparse", method="learned")
        moved = _pick(self.of["transfer"], measurement="interchange", chosen=True)
        self.moved = {str(r["direction"]): r for r in _pick(moved, quantity="share_moved").to_dict("records")}
        self.beyond_nulls = _first(moved, quantity="share_moved_minus_null", direction="circuit")
        self.beyond_means = _first(moved, quantity="share_moved_minus_baseline", direction="circuit")

    def _able(self, model: str) -> Row | None:
        return _first(self.of["behaviours"], split="heldout", model=model)

    def agrees(self, quantity: str) -> Row | None:
        return _first(self.of["agreement"], first="dense", second="circuit", quantity=quantity)

    @property
    def best_null(self) -> float:
        values = [_number(self.moved.get(name)) for name in NULLS]
        return max((v for v in values if not math.isnan(v)), default=NAN)

    # --- criteria -------------------------------------------------------------------------------------------------

    def dense_can(self) -> Evidence:
        bar, row = self.config.dense_accuracy, self.dense
        value, low, high = (_number(row, f"accuracy{end}") for end in ("", "_low", "_high"))
        meaning = "the share of held-out prompts that the dense model decides rightly"
        return Evidence("dense_accuracy", meaning, value, bar, value >= bar, low=low, high=high)

    def criteria(self) -> list[Evidence]:
        """Everything but the dense model's own accuracy; corrections are still to come."""
        return [
            self._circuit_found(),
            self._at_least(
                "circuit_accuracy",
                "the share of held-out prompts that the circuit alone decides rightly",
                self.agrees("accuracy"),
                self.config.circuit_accuracy,
                veto=True,
            ),
            *self._controls(),
            self._at_least(
                "decision_agreement",
                "the share of held-out prompts that circuit and dense model decide alike",
                self.agrees("decision_agreement"),
                self.config.decision_agreement,
            ),
            self._share_moved(),
            self._test(
                "beats_nulls",
                "the share of the dense logit difference that the circuit moves beyond the best null",
                self.beyond_nulls,
                veto=True,
            ),
            self._test(
                "necessity",
                "the rise of the dense loss without the circuit's channels beyond that of the worst null, nats,",
                _first(
                    self.of["transfer"],
                    measurement="necessity",
                    chosen=True,
                    quantity="loss_minus_null",
                    direction="circuit",
                ),
            ),
            self._dense_to_sparse(),
            self._beats_means(),
        ]

    @staticmethod
    def _at_least(name: str, meaning: str, row: Row | None, bar: float, veto: bool = False) -> Evidence:
        return Evidence(name, meaning, threshold=bar, passed=_number(row) >= bar, veto=veto, **_interval(row))

    @staticmethod
    def _test(name: str, meaning: str, row: Row | None, veto: bool = False) -> Evidence:
        p = _number(row, "p_value")
        # What was not measured has not been passed, but neither has it been failed.
        veto = veto and not math.isnan(_number(row))
        return Evidence(name, meaning, threshold=0.0, passed=False, veto=veto, p_value=p, **_interval(row))

    def _circuit_found(self) -> Evidence:
        found = self.circuit is not None and bool(self.circuit["reached"])
        loss, target = _number(self.circuit, "train_loss"), _number(self.circuit, "target")
        meaning = "the loss of the sparse circuit on training pairs, in nats,"
        return Evidence("circuit_found", meaning, loss, target, found, veto=True)

    def _controls(self) -> list[Evidence]:
        rows = _pick(self.of["controls"], model="sparse", method="learned")
        decided = rows[rows["passed"].notna()] if len(rows) else rows
        by_name = {row["control"]: row for row in decided.to_dict("records")}
        return [self._control(name, by_name.get(name)) for name in CONTROLS]

    @staticmethod
    def _control(name: str, row: Row | None) -> Evidence:
        plain = f"circuit's control {name}".replace("_", " ")
        if row is None:
            # What a circuit was not put to it has not withstood, but neither has it failed.
            return Evidence(f"control_{name}", f"the {plain}", NAN, NAN, False)
        meaning = f"the {row['quantity']} of the {plain}".replace("_", " ")
        bar, passed = _number(row, "threshold"), bool(row["passed"])
        # A control that compares circuits ran, and failed, where the behaviour's own is not found a second time.
        missing = "has no value, because the behaviour's own circuit was not found again in this control's searches"
        return Evidence(f"control_{name}", meaning, _number(row), bar, passed, veto=True, missing=missing)

    def _beats_means(self) -> Evidence:
        meaning = "the share moved by the circuit beyond that of a difference of means of equal norm"
        # The two are equal where both move all there is, and where neither moves anything: that is no merit.
        passed = _number(self.beyond_means, "value_low") >= 0 and _number(self.moved.get("circuit")) > 0
        name = "beats_difference_of_means"
        return Evidence(name, meaning, threshold=0.0, passed=passed, **_interval(self.beyond_means))

    def _share_moved(self) -> Evidence:
        row, bar = self.moved.get("circuit"), self.config.share_moved
        passed = _number(row) >= bar and _number(row, "value_low") > 0
        meaning = "the share of the dense logit difference that the circuit moves across the chosen bridge"
        return Evidence("share_moved", meaning, threshold=bar, passed=passed, **_interval(row))

    def _dense_to_sparse(self) -> Evidence:
        bar = self.config.dense_to_sparse
        rows = _pick(self.of["transfer"], measurement="dense_to_sparse", chosen=True, quantity="accuracy")
        row = _first(rows, direction="circuit")
        shuffled, empty = (_number(_first(rows, direction=name)) for name in ("shuffled_bridge", "empty_circuit"))
        low = _number(row, "value_low")
        passed = _number(row) >= bar and low > shuffled and low > empty
        known = not math.isnan(shuffled) and not math.isnan(empty)
        beside = f" ({shuffled:.3g} with shuffled encoders, {empty:.3g} without the circuit)" if known else ""
        meaning = f"the share of prompts that the circuit decides rightly from the encoded dense stream{beside}"
        return Evidence("dense_to_sparse", meaning, threshold=bar, passed=passed, **_interval(row))


def _corrected(found: dict[str, list[Evidence]], alpha: float) -> dict[str, list[Evidence]]:
    """The tests decided, each corrected over the behaviours it was made for."""
    for test in TESTS:
        at = {name: next(k for k, e in enumerate(mine) if e.criterion == test) for name, mine in found.items()}
        adjusted = holm(np.array([found[name][k].p_value for name, k in at.items()]))
        for (name, k), p in zip(at.items(), adjusted, strict=True):
            one = found[name][k]
            found[name][k] = replace(one, p_adjusted=float(p), passed=bool(p <= alpha) and one.value > 0)
    return found


def _judged(evidence: Sequence[Evidence]) -> tuple[str, str]:
    """Verdict and reason of a behaviour that the dense model can do."""
    passed = {e.criterion: e.passed for e in evidence}
    failed = [e for e in evidence if not e.passed]
    by_name = {e.criterion: e for e in evidence}
    moved = by_name["share_moved"].sentence()
    if not failed:
        return "reproduced", f"all {len(evidence)} criteria hold: {moved}."
    vetoes = [e for e in failed if e.veto]
    if vetoes:
        return "not", f"{vetoes[0].sentence()}, which alone rules it out."
    if not (passed["share_moved"] or passed["dense_to_sparse"]):
        return "not", f"neither way across the bridges holds: {moved}."
    return "partial", f"no veto failed and {moved}, but {failed[0].sentence()}."


def _verdict_row(name: str, case: _Case, verdict: str, reason: str, evidence: Sequence[Evidence]) -> Row:
    dense_circuit = _first(case.of["circuits"], model="dense", method="learned")
    if dense_circuit is not None and not dense_circuit["reached"]:
        dense_circuit = None
    reached = case.circuit is not None and bool(case.circuit["reached"])
    circuit = case.circuit if reached else None
    moved = case.moved.get("circuit")
    unmet = [e for e in evidence if not e.passed]
    # What could not be measured because something else failed says nothing more.
    failed = [e.criterion for e in [e for e in unmet if not math.isnan(e.value)] or unmet]
    return {
        "behaviour": name,
        "verdict": verdict,
        "reason": reason,
        "dense_accuracy": _number(case.dense, "accuracy"),
        "sparse_accuracy": _number(case.sparse, "accuracy"),
        "circuit_accuracy": _number(case.agrees("accuracy")),
        "nodes": None if circuit is None else int(circuit["nodes"]),
        "edges": None if circuit is None else int(circuit["edges"]),
        "dense_edges": None if dense_circuit is None else int(dense_circuit["edges"]),
        "agreement": _number(case.agrees("decision_agreement")),
        "correlation": _number(case.agrees("logit_difference_correlation")),
        "share_moved": _number(moved),
        "share_moved_low": _number(moved, "value_low"),
        "share_moved_null": case.best_null,
        "share_moved_baseline": _number(case.moved.get("difference_of_means")),
        "failed": ", ".join(failed) or None,
    }


def decide(tables: Tables, config: VerdictConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evidence and verdicts of every behaviour of a run.

    ``reproduced`` needs every criterion. ``partial`` needs every veto criterion, the circuit's accuracy and the nulls
    among them, and one way across the bridges: the circuit's change moves the dense model, or the circuit goes on from
    the dense model's stream. What was not measured is not met.

    Args:
        tables: ``suite``, ``behaviours``, ``circuits``, ``controls``, ``agreement`` and ``transfer``; one that is
            missing counts as empty.
        config: the bars.

    Returns:
        the tables ``evidence`` and ``verdicts``, in the order of the suite.
    """
    names = list(dict.fromkeys(tables["suite"]["behaviour"])) if "suite" in tables else []
    cases = {name: _Case(tables, name, config) for name in names}
    expressed = {n: c for n, c in cases.items() if c.suite is not None and bool(c.suite["expressible"])}
    first = {n: c.dense_can() for n, c in expressed.items()}
    rest = _corrected({n: c.criteria() for n, c in expressed.items() if first[n].passed}, config.alpha)
    evidence, verdicts = [], []
    for name, case in cases.items():
        mine: list[Evidence] = []
        if name not in expressed:
            why = None if case.suite is None else case.suite.get("reason")
            verdict, reason = "not expressible", str(why) if isinstance(why, str) else "No prompts in these tokens."
        elif name not in rest:
            mine = [first[name]]
            verdict, reason = "dense model cannot", f"{first[name].sentence()}."
        else:
            mine = [first[name], *rest[name]]
            verdict, reason = _judged(mine)
        evidence += [e.row(name) for e in mine]
        verdicts.append(_verdict_row(name, case, verdict, reason[:1].upper() + reason[1:], mine))
    frames = (
        pd.DataFrame(evidence, columns=TABLES["evidence"].names),
        pd.DataFrame(verdicts, columns=TABLES["verdicts"].names),
    )
    for column in ("nodes", "edges", "dense_edges"):
        frames[1][column] = frames[1][column].astype("Int64")
    return frames
