"""Verdicts from tables: every verdict, every state, and what decided it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bridges.compare.claims import Criterion
from bridges.compare.verdict import decide
from bridges.config import VerdictConfig
from bridges.errors import ConfigError
from bridges.storage.tables import TABLES, write_table
from bridges.storage.tables.verdicts import CLAIMS, STATES, VERDICTS

CONFIG = VerdictConfig()
NAN = float("nan")

# A behaviour of which everything holds: value, and how far its interval reaches to either side.
GOOD: dict[str, Any] = {
    "expressible": True,
    "shared_last": 1.0,
    "dense": (0.97, 0.01),
    "sparse": (0.96, 0.01),
    "bigram": 0.5,
    "reached": True,
    "fvu": (0.1, 0.03),
    "faithfulness": (0.95, 0.05),
    "accuracy_share": (0.99, 0.01),
    "without": (0.5, 0.05),
    "random_sets": 1.0,
    "edges": 200,
    "dense_edges": 900,
    "dense_reached": True,
    "dense_nodes": 800,
    "null_edges": 400.0,
    "own_edges": None,
    "ceiling": (0.95, 0.02),
    "to_dense": (0.7, 0.05),
    "to_sparse": (0.8, 0.05),
    "beyond": (0.5, 0.1),
    "p": 0.0005,
    "beyond_back": (0.5, 0.1),
    "p_back": 0.0005,
    "resample": (0.95, 0.02),
    "random_text": (0.95, 0.02),
    "interchange": (0.9, 0.02),
    "stochastic": (0.95, 0.02),
    "adversarial": (0.3, 0.05),
    "seeds": (0.5, 0.05),
    "reach": (0.1, 0.02),
}


def spread(given: Any, name: str = "value") -> dict[str, float]:
    """Value and interval as columns, from value and half of its width, or all three; a single number has none."""
    if isinstance(given, tuple) and len(given) == 3:
        return dict(zip((name, f"{name}_low", f"{name}_high"), given, strict=True))
    value, half = given if isinstance(given, tuple) else (given, NAN)
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def tables(**behaviours: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables of a run; every behaviour is good but for what is given. What is None was not measured."""
    out: dict[str, list[dict]] = {
        n: [] for n in ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")
    }
    for name, changes in behaviours.items():
        g = GOOD | changes
        row = {"behaviour": name, "expressible": g["expressible"], "shared_last": g["shared_last"]}
        out["suite"].append(row | {"reason": "no single token for it"})
        if not g["expressible"]:
            continue
        for model in ("dense", "sparse", "bigram"):
            if g[model] is not None:
                row = {"behaviour": name, "split": "heldout", "model": model}
                out["behaviours"].append(row | spread(g[model], "accuracy"))
        if g["reached"] is not None:
            row = {"behaviour": name, "method": "learned", "objective": "faithful", "nodes": 50, "target": 0.1}
            loss = 0.09 if g["reached"] else 0.6
            own = {"model": "sparse", "edges": g["edges"], "reached": g["reached"], "train_loss": loss}
            out["circuits"].append(row | own)
            if g["dense_edges"] is not None:
                other = {"model": "dense", "edges": g["dense_edges"], "reached": g["dense_reached"]}
                other |= {"nodes": g["dense_nodes"], "total_nodes": 1000}
                out["circuits"].append(row | other)
        if not g["reached"]:
            continue
        for quantity in ("fvu", "faithfulness", "accuracy_share"):
            row = {"behaviour": name, "first": "sparse", "second": "circuit", "quantity": quantity}
            out["agreement"].append(row | spread(g[quantity]))
        controls = [("necessity", "accuracy_without", "without"), ("necessity", "harmless_random_sets", "random_sets")]
        controls += [("consistent_labels", quantity, quantity) for quantity in ("null_edges", "own_edges")]
        for control in ("resample", "random_text", "interchange", "stochastic", "adversarial", "seeds", "reach"):
            controls.append((control, "quantity", control))
        for control, quantity, key in controls:
            if g[key] is not None:
                row = {"behaviour": name, "model": "sparse", "control": control, "quantity": quantity, "decides": True}
                out["controls"].append(row | spread(g[key]))
        if g["ceiling"] is None:
            continue
        for bridge in range(5):
            for measurement, mover, ceiling, share, beyond, p in (
                ("interchange", "circuit", "dense", "to_dense", "beyond", "p"),
                ("dense_to_sparse", "dense", "circuit", "to_sparse", "beyond_back", "p_back"),
            ):
                row = {"behaviour": name, "measurement": measurement, "bridge": bridge, "selected": bridge == 3}
                row["p_value"] = NAN
                moved = (0.5, 0.05) if bridge == 3 else (0.0, 0.01)
                high = g["ceiling"] if bridge in (3, 4) else (0.0, 0.01)
                out["transfer"] += [
                    row | {"direction": ceiling, "quantity": "share_moved"} | spread(high),
                    row | {"direction": mover, "quantity": "share_moved"} | spread(moved),
                    row | {"direction": mover, "quantity": "share_of_ceiling"} | spread(g[share]),
                ]
                if bridge == 3 and g[beyond] is not None:
                    row = row | {"direction": mover, "quantity": "share_moved_minus_null", "p_value": g[p]}
                    out["transfer"].append(row | spread(g[beyond]))
    return {name: pd.DataFrame(rows, columns=TABLES[name].names) for name, rows in out.items()}


def verdict(config: VerdictConfig = CONFIG, **changes: Any) -> dict[str, Any]:
    """The row of the one behaviour."""
    return decide(tables(it=changes), config)[1].iloc[0].to_dict()


def claims(**changes: Any) -> pd.DataFrame:
    return decide(tables(it=changes), CONFIG)[0].set_index("criterion")


# --- one row a case -----------------------------------------------------------------------------------------------

MISSED = {
    "not expressible": [({"expressible": False}, "")],
    "last token suffices": [({"shared_last": 0.8}, "shared_last"), ({"bigram": 0.9}, "bigram")],
    "dense model cannot": [({"dense": (0.7, 0.02)}, "dense_accuracy")],
    "not": [
        ({"sparse": (0.7, 0.02)}, "sparse_accuracy"),
        ({"reached": False}, "circuit_found"),
        ({"fvu": (0.5, 0.1)}, "fvu"),
        ({"accuracy_share": (0.7, 0.05)}, "circuit_accuracy"),
        ({"faithfulness": (0.5, 0.1)}, "faithfulness"),
        ({"faithfulness": (1.6, 0.1)}, "overshoot"),
        ({"without": (0.9, 0.05)}, "accuracy_without"),
        ({"random_sets": 0.5}, "random_sets"),
        # Neither smaller nor the same computation.
        ({"edges": 1000, "ceiling": (0.2, 0.05)}, "dense_edges, consistent_edges, ceiling"),
        ({"edges": 1000, "to_dense": (0.1, 0.05), "to_sparse": (0.1, 0.05)},
         "dense_edges, consistent_edges, share_to_dense, share_to_sparse"),
    ],
    "partial": [
        ({"edges": 950}, "dense_edges, consistent_edges"),
        ({"edges": 500}, "consistent_edges"),
        ({"edges": 500, "own_edges": 400.0}, "consistent_edges"),
        # The search to the task loss found none: the faithful circuit stands for itself.
        ({"edges": 500, "own_edges": NAN}, "consistent_edges"),
        ({"edges": 900, "null_edges": 2000.0}, "dense_edges"),
        ({"to_dense": (0.1, 0.05)}, "share_to_dense"),
        ({"to_sparse": (0.1, 0.05)}, "share_to_sparse"),
        ({"to_dense": (0.1, 0.05), "to_sparse": (0.1, 0.05)}, "share_to_dense, share_to_sparse"),
        ({"ceiling": (0.2, 0.05)}, "ceiling"),
        ({"beyond": (-0.2, 0.1), "p": 1.0}, "nulls_to_dense"),
        # One way holds and the size does not.
        ({"edges": 950, "to_sparse": (0.1, 0.05)}, "dense_edges, consistent_edges, share_to_sparse"),
    ],
    "undecided": [
        ({"dense": (0.91, 0.05)}, "dense_accuracy"),
        ({"sparse": (0.88, 0.05)}, "sparse_accuracy"),
        ({"fvu": (0.19, 0.05)}, "fvu"),
        ({"fvu": (0.21, 0.05)}, "fvu"),
        ({"faithfulness": (0.82, 0.05)}, "faithfulness"),
        ({"faithfulness": (1.19, 0.05)}, "overshoot"),
        ({"without": (0.69, 0.05)}, "accuracy_without"),
        ({"without": None, "random_sets": None}, "accuracy_without, random_sets"),
        ({"null_edges": None, "dense_edges": None}, "dense_edges, consistent_edges"),
        ({"ceiling": None}, "ceiling"),
        ({"to_dense": (0.52, 0.05)}, "share_to_dense"),
        ({"beyond": (0.05, 0.1), "p": 0.2}, "nulls_to_dense"),
        ({"beyond": None}, "nulls_to_dense"),
    ],
    "reproduced": [
        ({}, None),
        # A search that finds no circuit where there is nothing to find is as large as can be.
        ({"null_edges": NAN}, None),
        # Less is asked of the meaningless task's circuit; to the same task loss the behaviour's is smaller.
        ({"edges": 500, "own_edges": 90.0}, None),
        ({"dense_reached": False}, None),
        # The whole dense model is no circuit of it: that no smaller one was found is no comparison, won or lost.
        ({"dense_nodes": 1000}, None),
        ({"dense_nodes": 1000, "edges": 950, "null_edges": 2000.0}, None),
        # One comparison of sizes stands alone where the other cannot be made.
        ({"dense_edges": None}, None),
        ({"null_edges": None}, None),
        # Robustness is shown and decides nothing.
        ({"resample": (0.3, 0.02), "adversarial": (5.0, 0.1), "reach": (0.9, 0.05)}, None),
        # No bigram table of so large a vocabulary.
        ({"bigram": None}, None),
    ],
}  # fmt: skip
CASES = [(name, *case) for name, cases in MISSED.items() for case in cases]


@pytest.mark.parametrize(("expected", "changes", "failed"), CASES, ids=lambda x: str(x)[:60])
def test_every_verdict_names_what_decided_it(expected, changes, failed):
    row = verdict(**changes)
    assert row["verdict"] == expected, row["reason"]
    assert (row["failed"] or "") == (failed or "")
    assert len(row["reason"].split()) <= 15 and row["reason"]


def test_there_is_a_case_for_every_verdict():
    assert set(MISSED) == set(VERDICTS)


def test_the_tables_are_those_of_a_run(tmp_path):
    found = decide(tables(one={}, two={"reached": False}, three={"expressible": False}), CONFIG)
    for name, frame in zip(("claims", "verdicts"), found, strict=True):
        write_table(tmp_path, name, frame)
    assert found[1]["behaviour"].tolist() == ["one", "two", "three"]
    assert set(found[0]["claim"]) == set(CLAIMS) and set(found[0]["state"]) <= set(STATES)
    row = found[1].iloc[0]
    assert (row["nodes"], row["edges"], row["dense_edges"], row["bridge"]) == (50, 200, 900, 3)
    assert (row["share_moved"], row["ceiling"], row["fvu"], row["reach_fvu"]) == (0.5, 0.95, 0.1, 0.1)
    assert row["robust"] is np.True_ or row["robust"] is True


def test_a_table_that_is_missing_counts_as_empty():
    found = tables(it={})
    del found["transfer"], found["controls"]
    row = decide(found, CONFIG)[1].iloc[0]
    assert row["verdict"] == "undecided" and "not measured" in row["reason"]
    assert decide({}, CONFIG)[1].empty


def test_what_the_dense_model_cannot_is_asked_nothing_else():
    assert set(claims(dense=(0.6, 0.05))["claim"]) == {"done"}
    assert set(claims(reached=False)["claim"]) == {"done", "sufficient"}


# --- states -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high", "at_least", "state"),
    [
        (0.7, 0.6, 0.8, True, "held"),
        (0.7, 0.5, 0.8, True, "held"),
        (0.7, 0.4, 0.8, True, "open"),
        (0.4, 0.3, 0.6, True, "open"),
        (0.4, 0.3, 0.49, True, "missed"),
        (0.4, 0.3, 0.5, True, "open"),
        (0.4, 0.3, 0.5, False, "held"),
        (0.4, 0.3, 0.6, False, "open"),
        (0.7, 0.5, 0.8, False, "open"),
        (0.7, 0.6, 0.8, False, "missed"),
        # Without an interval the value is compared as it is.
        (0.5, NAN, NAN, True, "held"),
        (0.49, NAN, NAN, True, "missed"),
        (NAN, NAN, NAN, True, "not measured"),
    ],
)
def test_the_state_is_how_the_interval_lies_to_the_bar(value, low, high, at_least, state):
    assert Criterion("small", "x", value, 0.5, at_least, "x", "X.", low, high).state == state


@pytest.mark.parametrize(
    ("value", "high", "p", "state"),
    [(0.3, 0.5, 0.01, "held"), (0.3, 0.5, 0.06, "open"), (-0.3, 0.1, 1.0, "open"), (-0.3, -0.1, 1.0, "missed")],
)
def test_a_test_that_fails_shows_nothing_unless_all_of_its_interval_is_below_zero(value, high, p, state):
    made = Criterion("same computation", "x", value, 0.0, True, "x", "X.", value - 0.2, high, p, p, 0.05)
    assert made.state == state


def test_no_verdict_flips_because_a_point_estimate_crossed_a_bar():
    """From a bar's wrong side to its right one a measurement with an interval passes through `undecided`."""
    bars = {
        "sparse": np.linspace(0.80, 0.99, 60),
        "fvu": np.linspace(0.4, 0.02, 60),
        "faithfulness": np.linspace(0.6, 1.0, 60),
        "accuracy_share": np.linspace(0.8, 1.0, 60),
        "without": np.linspace(0.95, 0.4, 60),
        "to_dense": np.linspace(0.3, 0.8, 60),
        "to_sparse": np.linspace(0.3, 0.8, 60),
        "ceiling": np.linspace(0.3, 0.8, 60),
    }
    for name, values in bars.items():
        found = [verdict(**{name: (float(v), 0.03)})["verdict"] for v in values]
        order = list(dict.fromkeys(found))
        assert order[0] in ("not", "partial") and order[-1] == "reproduced", (name, order)
        assert "undecided" in order and found == sorted(found, key=order.index), (name, found)


def test_a_share_of_random_sets_passes_through_undecided_too():
    found = [
        verdict(random_sets=(share, share, min(1.0, share + 0.06)))["verdict"] for share in (0.7, 0.92, 0.94, 0.96)
    ]
    assert found == ["not", "undecided", "undecided", "reproduced"]


# --- tests --------------------------------------------------------------------------------------------------------


def test_p_values_are_corrected_over_the_behaviours():
    twenty = {f"b{i}": {"p": 0.004, "p_back": 0.0005} for i in range(20)}
    found = decide(tables(**twenty), CONFIG)
    assert set(found[1]["verdict"]) == {"undecided"}
    adjusted = found[0].set_index(["behaviour", "criterion"])["p_adjusted"]
    assert adjusted["b0", "nulls_to_dense"] == pytest.approx(0.08)
    # Each of the two tests has a family of its own.
    assert adjusted["b0", "nulls_to_sparse"] == pytest.approx(0.01)
    assert set(decide(tables(**{n: twenty[n] for n in ("b0", "b1")}), CONFIG)[1]["verdict"]) == {"reproduced"}


def test_an_early_correction_is_never_kinder_than_the_last():
    rng = np.random.default_rng(0)
    for _ in range(5):
        ps = rng.uniform(0.0005, 0.02, 6)
        every = {f"b{i}": {"p": float(p), "p_back": float(p)} for i, p in enumerate(ps)}
        last = decide(tables(**every), CONFIG)[0].set_index(["behaviour", "criterion"])["p_adjusted"]
        for name, changes in every.items():
            early = decide(tables(**{name: changes}), CONFIG, tests_made=6)[0].set_index("criterion")["p_adjusted"]
            for test in ("nulls_to_dense", "nulls_to_sparse"):
                assert early[test] >= last[name, test] - 1e-12


def test_what_was_not_tested_takes_no_part_in_the_correction():
    found = decide(tables(one={"p": 0.04}, two={"p": 0.04, "beyond": None}, three={"dense": (0.5, 0.1)}), CONFIG)[0]
    adjusted = found.set_index(["behaviour", "criterion"])["p_adjusted"]
    assert adjusted["one", "nulls_to_dense"] == pytest.approx(0.04)


# --- robustness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bad", "unsure"),
    [
        ("resample", (0.5, 0.05), (0.86, 0.05)),
        ("random_text", (0.5, 0.05), (0.86, 0.05)),
        ("interchange", (0.5, 0.05), (0.8, 0.05)),
        ("stochastic", (0.5, 0.05), (0.86, 0.05)),
        ("adversarial", (2.0, 0.2), (0.5, 0.2)),
        ("seeds", (0.9, 0.05), (0.7, 0.05)),
        ("reach", (0.8, 0.1), (0.2, 0.1)),
    ],
)
def test_robustness_is_graded_beside_the_verdict(name, bad, unsure):
    assert verdict()["robust"] is True or verdict()["robust"] == True  # noqa: E712
    row = verdict(**{name: bad})
    assert row["verdict"] == "reproduced" and row["robust"] == False  # noqa: E712
    assert pd.isna(verdict(**{name: unsure})["robust"]) and pd.isna(verdict(**{name: None})["robust"])


def test_only_what_is_reproduced_can_be_robust():
    assert pd.isna(verdict(fvu=(0.9, 0.05))["robust"])


# --- words --------------------------------------------------------------------------------------------------------


def test_reasons_hold_value_and_bar():
    assert verdict(fvu=(0.31, 0.05))["reason"] == "FVU 0.31 > 0.20"
    assert verdict(fvu=(0.19, 0.05))["reason"] == "FVU 0.19 [0.14, 0.24] straddles 0.20"
    assert "edges 950 > 900" in verdict(edges=950)["reason"]
    for row in decide(tables(a={}, b={"fvu": (0.3, 0.05)}, c={"reached": False}), CONFIG)[0].to_dict("records"):
        assert len(row["short"].split()) <= 12 and row["meaning"].endswith(".")


def test_bars_are_settings():
    assert verdict(VerdictConfig(fvu=0.05))["verdict"] == "not"
    assert verdict(VerdictConfig(alpha=0.0001))["verdict"] == "undecided"
    for name in ("dense_accuracy", "fvu", "necessity", "quantile", "ceiling", "share_of_ceiling", "alpha"):
        with pytest.raises(ConfigError, match=rf"verdict\.{name}"):
            VerdictConfig(**{name: 1.5})
