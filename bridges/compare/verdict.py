"""The verdict: which behaviours of the dense model are reproduced by an interpretable sparse circuit?

*Behaviour B of dense model D is reproduced by circuit C of sparse model S* claims five things, each measured on unseen
draws of the behaviour's distribution with an interval over frames and pairs: D does it (*done*); C alone explains S
(*sufficient*); S without C loses it (*necessary*); C is smaller than D's own circuit and than that of a meaningless
task (*small*); and what C computes is what D computes, both ways across a bridge (*same computation*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bridges.circuits.bootstrap import holm
from bridges.compare.claims import (
    Criterion,
    Facts,
    Tables,
    done,
    necessary,
    number,
    robustness,
    same_computation,
    small,
    sufficient,
)
from bridges.config import VerdictConfig
from bridges.storage.tables import TABLES

Row = dict[Any, Any]
# Made once for every behaviour, and corrected for that.
TESTS = ("nulls_to_dense", "nulls_to_sparse")
WAYS = (("share_to_dense", "nulls_to_dense"), ("share_to_sparse", "nulls_to_sparse"))
# Without these there is nothing to search a circuit for.
LAST_TOKEN = ("shared_last", "bigram")


def claims_of(facts: Facts, config: VerdictConfig) -> list[Criterion]:
    """Every criterion of a behaviour; the corrections of tests are still to come."""
    first = done(facts, config)
    if any(c.state == "missed" for c in first):
        return first
    rest = [*first, *sufficient(facts, config)]
    if not facts.reached:
        return rest
    measured = [*necessary(facts, config), *small(facts), *same_computation(facts, config)]
    return [*rest, *measured, *robustness(facts, config)]


def corrected(found: dict[str, list[Criterion]], tests_made: int | None = None) -> dict[str, list[Criterion]]:
    """The tests' p-values, corrected over the behaviours they were made for (Holm).

    Args:
        tests_made: for a single behaviour whose siblings are still to come: how many there will be at most (then
            Bonferroni's correction, which is never kinder).
    """
    for test in TESTS:
        at = {name: k for name, criteria in found.items() for k, c in enumerate(criteria) if c.name == test}
        p_values = np.array([found[name][k].p_value for name, k in at.items()])
        adjusted = holm(p_values) if tests_made is None else np.minimum(1.0, p_values * tests_made)
        for (name, k), p in zip(at.items(), adjusted, strict=True):
            found[name][k] = replace(found[name][k], p_adjusted=float(p))
    return found


def _all(criteria: Sequence[Criterion], state: str = "held") -> bool:
    return bool(criteria) and all(c.state == state for c in criteria)


def judged(criteria: Sequence[Criterion]) -> tuple[str, str, list[str]]:
    """Verdict, reason and the criteria that decided, of a behaviour that can be expressed."""
    claims = {claim: [c for c in criteria if c.claim == claim] for claim in TABLES["claims"].columns[1].choices}
    by_name = {c.name: c for c in criteria}
    for c in claims["done"]:
        if c.state == "missed":
            return ("last token suffices" if c.name in LAST_TOKEN else "dense model cannot"), c.short, [c.name]
    # Not every dense model is searched: then the other comparison of sizes stands alone, and the reason says so.
    sized = [c for c in claims["small"] if c.state != "not measured"]
    unsized = [c for c in claims["small"] if c.state == "not measured"] if sized else []
    decisive = [c for c in criteria if c.claim != "robustness" and c not in unsized]
    missed = [c for c in decisive if c.state == "missed"]
    unsure = [c for c in decisive if c.state in ("open", "not measured")]
    core = [*claims["done"], *claims["sufficient"], *claims["necessary"]]
    if not missed and not unsure:
        moved = by_name["share_to_dense"]
        apart = "".join(f"; {c.name.replace('_', ' ')} not compared" for c in unsized)
        return "reproduced", f"all claims hold; {moved.short}{apart}", []
    if not missed:
        return "undecided", unsure[0].short, [c.name for c in unsure]
    if any(c in core for c in missed):
        return "not", missed[0].short, [c.name for c in missed]
    # What is missed is the size, or a way across the bridge.
    ways = [[by_name[n] for n in ("ceiling", *way) if n in by_name] for way in WAYS]
    crossed = any(len(way) == 3 and _all(way) for way in ways)
    if _all(core) and (crossed or _all(sized)):
        return "partial", missed[0].short, [c.name for c in missed]
    possible = [way for way in ways if len(way) == 3 and not any(c.state == "missed" for c in way)]
    if possible or not any(c.state == "missed" for c in claims["small"]):
        return "undecided", f"{missed[0].short}; {unsure[0].short}", [c.name for c in (*missed, *unsure)]
    return "not", missed[0].short, [c.name for c in missed]


def robust(criteria: Sequence[Criterion]) -> bool | None:
    """Whether everything of the robustness line held; None where nothing was missed but not all is known."""
    states = [c.state for c in criteria if c.claim == "robustness"]
    if not states:
        return None
    return False if "missed" in states else True if all(s == "held" for s in states) else None


def verdict_row(name: str, facts: Facts, criteria: Sequence[Criterion]) -> Row:
    """The row of table ``verdicts``."""
    if facts.suite is None or not bool(facts.suite["expressible"]):
        why = None if facts.suite is None else facts.suite.get("reason")
        verdict, reason, failed = "not expressible", str(why) if isinstance(why, str) else "no prompts", list[str]()
    else:
        verdict, reason, failed = judged(criteria)
    circuit = facts.circuit if facts.reached else None
    dense = facts.dense_circuit
    selected = facts.moved("interchange", "dense", "share_moved")
    return {
        "behaviour": name,
        "verdict": verdict,
        "robust": robust(criteria) if verdict == "reproduced" else None,
        "reason": reason,
        "dense_accuracy": number(facts.models["dense"], "accuracy"),
        "sparse_accuracy": number(facts.models["sparse"], "accuracy"),
        "circuit_accuracy": facts.explains("accuracy")["value"],
        "nodes": None if circuit is None else int(circuit["nodes"]),
        "edges": None if circuit is None else int(circuit["edges"]),
        "dense_edges": int(dense["edges"]) if dense is not None and facts.dense_found else None,
        "fvu": facts.explains("fvu")["value"],
        "faithfulness": facts.explains("faithfulness")["value"],
        "accuracy_without": number(facts.control("necessity", "accuracy_without")),
        "bridge": None if selected is None else int(selected["bridge"]),
        "share_moved": number(facts.moved("interchange", "circuit", "share_moved")),
        "ceiling": number(selected),
        "share_moved_sparse": number(facts.moved("interchange", "sparse", "share_moved")),
        "share_back": number(facts.moved("dense_to_sparse", "dense", "share_moved")),
        "ceiling_back": number(facts.moved("dense_to_sparse", "circuit", "share_moved")),
        "reach_fvu": number(facts.control("reach")),
        "failed": ", ".join(failed) or None,
    }


def decide(tables: Tables, config: VerdictConfig, tests_made: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Claims and verdicts of every behaviour of a run.

    ``reproduced``: every criterion of the five claims holds, its whole interval on the right side of the bar.
    ``partial``: the first three claims hold, and one way across the bridge or the size. ``not``: a bar is missed with
    the whole interval on the wrong side. ``undecided``: nothing is missed, but an interval lies across a bar, or
    something was not measured. ``last token suffices``, ``dense model cannot`` and ``not expressible`` come first.

    Args:
        tables: ``suite``, ``behaviours``, ``circuits``, ``controls``, ``agreement`` and ``transfer``; one that is
            missing counts as empty.
        config: the bars. tests_made: see `corrected`.

    Returns:
        the tables ``claims`` and ``verdicts``, in the order of the suite.
    """
    names = list(dict.fromkeys(tables["suite"]["behaviour"])) if "suite" in tables else []
    every = {name: Facts(tables, name) for name in names}
    asked = {n: f for n, f in every.items() if f.suite is not None and bool(f.suite["expressible"])}
    found = corrected({name: claims_of(facts, config) for name, facts in asked.items()}, tests_made)
    rows = [c.row(name) for name, criteria in found.items() for c in criteria]
    verdicts = [verdict_row(name, facts, found.get(name, [])) for name, facts in every.items()]
    frames = (
        pd.DataFrame(rows, columns=TABLES["claims"].names),
        pd.DataFrame(verdicts, columns=TABLES["verdicts"].names),
    )
    for column in ("nodes", "edges", "dense_edges", "bridge"):
        frames[1][column] = frames[1][column].astype("Int64")
    return frames
