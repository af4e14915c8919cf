"""Verdicts from tables: whoever fails a criterion fails that one, and nulls do not get through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bridges.compare.verdict import decide
from bridges.config import CONTROLS, VerdictConfig
from bridges.errors import ConfigError
from bridges.storage.tables import TABLES, write_table

CONFIG = VerdictConfig()
GOOD = {
    "dense": 0.99,
    "reached": True,
    "accuracy": 0.97,
    "alike": 0.96,
    "control": True,
    "moved": 0.8,
    "null": 0.1,
    "p": 0.0005,
    "means": 0.7,
    "loss_p": 0.0005,
    "back": 0.95,
    "back_null": 0.5,
    "back_none": 0.5,
    "expressible": True,
    "without": None,
}


def around(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "value_low": value - width, "value_high": value + width}


def tables(**behaviours: dict) -> dict[str, pd.DataFrame]:
    """Tables of a run; every behaviour is good but for what is given."""
    names = ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")
    out: dict[str, list[dict]] = {name: [] for name in names}
    for name, changes in behaviours.items():
        g = GOOD | changes
        out["suite"].append({"behaviour": name, "expressible": g["expressible"], "reason": "no such token"})
        if not g["expressible"]:
            continue
        for model in ("dense", "sparse"):
            row = {"behaviour": name, "split": "heldout", "model": model, "pair": None, "accuracy": g["dense"]}
            out["behaviours"].append(row | {"accuracy_low": g["dense"] - 0.02, "accuracy_high": g["dense"] + 0.01})
        for model in ("sparse", "dense"):
            row = {"behaviour": name, "model": model, "method": "learned", "seed": 0, "nodes": 12, "edges": 9}
            loss = 0.1 if g["reached"] else 0.5
            out["circuits"].append(row | {"reached": g["reached"], "train_loss": loss, "target": 0.15})
        if not g["reached"]:
            continue
        for control in CONTROLS:
            if control == g["without"]:
                continue
            row = {"behaviour": name, "model": "sparse", "method": "learned", "control": control, "quantity": "loss"}
            passed = g["control"] or control != "nonsense"
            out["controls"].append(row | {"value": 0.2, "threshold": 0.3, "passed": None})
            out["controls"].append(row | {"value": 0.2, "threshold": 0.3, "passed": passed})
        for quantity, value in (("accuracy", g["accuracy"]), ("decision_agreement", g["alike"])):
            row = {"behaviour": name, "first": "dense", "second": "circuit", "quantity": quantity}
            out["agreement"].append(row | around(value, 0.02))

        def transfer(measurement: str, direction: str, quantity: str, value: float, p=np.nan, name=name) -> None:
            for pair in (0, 1):
                row = {"behaviour": name, "measurement": measurement, "pair": pair, "direction": direction}
                row |= {"quantity": quantity, "chosen": pair == 1, "p_value": p}
                # What was not chosen on training pairs must not count, however good it is.
                out["transfer"].append(row | around(value if pair == 1 else 0.99))

        for direction, value in (
            ("circuit", g["moved"]), ("random_directions", 0.0), ("random_nodes", g["null"]), ("shuffled_bridge", 0.01),
            ("difference_of_means", g["means"]),
        ):  # fmt: skip
            transfer("interchange", direction, "share_moved", value)
        transfer("interchange", "circuit", "share_moved_minus_null", g["moved"] - g["null"], g["p"])
        transfer("interchange", "circuit", "share_moved_minus_baseline", g["moved"] - g["means"])
        transfer("necessity", "circuit", "loss_minus_null", 0.4, g["loss_p"])
        transfer("dense_to_sparse", "circuit", "accuracy", g["back"])
        transfer("dense_to_sparse", "shuffled_bridge", "accuracy", g["back_null"])
        transfer("dense_to_sparse", "empty_circuit", "accuracy", g["back_none"])
    return {name: pd.DataFrame(rows) for name, rows in out.items()}


def verdict(config: VerdictConfig = CONFIG, **changes) -> tuple[pd.Series, dict[str, bool]]:
    evidence, verdicts = decide(tables(b=changes), config)
    return verdicts.iloc[0], dict(zip(evidence["criterion"], evidence["passed"], strict=True))


def test_a_good_circuit_is_reproduced(tmp_path):
    evidence, verdicts = decide(tables(b={}, c={}), CONFIG)
    assert list(verdicts["verdict"]) == ["reproduced", "reproduced"] and evidence["passed"].all()
    assert list(evidence.query("behaviour == 'b'")["criterion"]) == [
        "dense_accuracy", "circuit_found", "circuit_accuracy", *(f"control_{name}" for name in CONTROLS),
        "decision_agreement", "share_moved", "beats_nulls", "necessity", "dense_to_sparse",
        "beats_difference_of_means",
    ]  # fmt: skip
    row = verdicts.iloc[0]
    assert (row["nodes"], row["edges"], row["dense_edges"]) == (12, 9, 9)
    assert (row["share_moved"], row["share_moved_null"], row["share_moved_baseline"]) == (0.8, 0.1, 0.7)
    assert "0.8" in row["reason"] and "All 19 criteria" in row["reason"] and row["failed"] is None
    vetoes = set(evidence[evidence["veto"]]["criterion"])
    assert vetoes == {"circuit_found", "circuit_accuracy", "beats_nulls", *(f"control_{name}" for name in CONTROLS)}
    for name, frame in (("evidence", evidence), ("verdicts", verdicts)):
        write_table(tmp_path, name, frame)


@pytest.mark.parametrize(
    ("changes", "criterion", "expected"),
    [
        ({"accuracy": 0.8}, "circuit_accuracy", "not"),
        ({"control": False}, "control_nonsense", "not"),
        ({"without": "seeds"}, "control_seeds", "partial"),
        ({"p": 0.2}, "beats_nulls", "not"),
        ({"alike": 0.8}, "decision_agreement", "partial"),
        ({"loss_p": 0.3}, "necessity", "partial"),
        ({"means": 0.9}, "beats_difference_of_means", "partial"),
        ({"means": 0.77}, "beats_difference_of_means", "partial"),
        ({"back": 0.7}, "dense_to_sparse", "partial"),
        ({"back_null": 0.92}, "dense_to_sparse", "partial"),
        ({"back_none": 0.92}, "dense_to_sparse", "partial"),
        ({"moved": 0.4, "means": 0.3}, "share_moved", "partial"),
    ],
)
def test_who_fails_a_criterion_fails_that_one(changes, criterion, expected):
    row, passed = verdict(**changes)
    assert [name for name, ok in passed.items() if not ok] == [criterion]
    assert (row["verdict"], row["failed"]) == (expected, criterion)


def test_a_positive_share_needs_an_interval_above_zero():
    row, passed = verdict(VerdictConfig(share_moved=0.0), moved=0.04, means=0.0, null=0.0)
    assert not passed["share_moved"] and row["verdict"] == "partial"


def test_a_difference_of_means_that_moves_all_as_well_is_not_better():
    some = tables(b={})
    equal = some["transfer"]["quantity"] == "share_moved_minus_baseline"
    some["transfer"].loc[equal, ["value", "value_low", "value_high"]] = 0.0
    assert decide(some, CONFIG)[1].iloc[0]["verdict"] == "reproduced"


def test_neither_way_across_the_bridges_is_no_part_of_an_answer():
    row, _ = verdict(moved=0.3, means=0.2, back=0.6)
    assert row["verdict"] == "not" and "Neither way" in row["reason"] and "0.3" in row["reason"]


def test_what_was_not_found_or_asked_is_no_evidence():
    row, passed = verdict(reached=False)
    assert row["verdict"] == "not" and not passed["circuit_found"] and "0.5" in row["reason"]
    assert pd.isna(row["nodes"]) and pd.isna(row["dense_edges"]) and np.isnan(row["share_moved"])
    row, passed = verdict(dense=0.8)
    assert row["verdict"] == "dense model cannot" and list(passed) == ["dense_accuracy"] and "0.8" in row["reason"]
    row, passed = verdict(expressible=False)
    assert (row["verdict"], row["reason"], passed) == ("not expressible", "No such token", {})
    # Without controls a circuit has withstood nothing.
    some = tables(b={})
    for missing in ("controls", "transfer"):
        rest = {name: frame for name, frame in some.items() if name != missing}
        found = decide(rest, CONFIG)[1].iloc[0]["verdict"]
        assert found == {"controls": "partial", "transfer": "not"}[missing]


def test_a_test_that_could_not_be_made_is_not_met_and_rules_nothing_out():
    some = tables(b={})
    # As where no two prompts of a pair are equally long: only the way back is measured.
    some["transfer"] = some["transfer"].query("measurement == 'dense_to_sparse'")
    evidence, verdicts = decide(some, CONFIG)
    assert verdicts.iloc[0]["verdict"] == "partial"
    assert not evidence.set_index("criterion").loc["beats_nulls", "passed"]


def test_a_control_whose_own_circuit_was_not_found_again_failed_and_says_so():
    some = tables(b={"control": False})
    failed = (some["controls"]["control"] == "nonsense") & some["controls"]["passed"].notna()
    some["controls"].loc[failed, "value"] = np.nan
    row = decide(some, CONFIG)[1].iloc[0]
    assert row["verdict"] == "not" and "was not found again" in row["reason"] and "not measured" not in row["reason"]


def test_the_tests_are_corrected_over_the_behaviours_they_were_made_for():
    many = {f"b{i}": {"p": 0.02} for i in range(3)} | {"strong": {"p": 0.001}, "unable": {"dense": 0.1, "p": 0.0}}
    evidence, verdicts = decide(tables(**many), CONFIG)
    tested = evidence.query("criterion == 'beats_nulls'").set_index("behaviour")
    # Holm over four: 0.001 times 4, then 0.02 times 3.
    assert tested["p_adjusted"].to_dict() == pytest.approx({"b0": 0.06, "b1": 0.06, "b2": 0.06, "strong": 0.004})
    by = verdicts.set_index("behaviour")["verdict"]
    assert (by[["b0", "b1", "b2"]] == "not").all() and by["strong"] == "reproduced"
    assert decide(tables(b0={"p": 0.02}), CONFIG)[1].iloc[0]["verdict"] == "reproduced"


def test_a_difference_below_zero_is_no_success_whatever_its_p():
    assert verdict(null=0.9, p=0.001)[0]["verdict"] == "not"


def test_bars_are_settings():
    assert verdict(VerdictConfig(circuit_accuracy=0.98))[0]["verdict"] == "not"
    assert verdict(VerdictConfig(alpha=0.0001))[0]["verdict"] == "not"
    with pytest.raises(ConfigError, match=r"verdict\.alpha"):
        VerdictConfig(alpha=2)


def test_an_empty_run_has_no_verdicts():
    evidence, verdicts = decide({}, CONFIG)
    assert evidence.empty and verdicts.empty and list(verdicts.columns) == TABLES["verdicts"].names
