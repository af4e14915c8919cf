"""The criteria of a verdict in plain words, and which of them were not met."""

from __future__ import annotations

from typing import Any

from bridges.report.markup import Num, Raw, details, html, join, note, table, tag
from bridges.report.source import Source
from bridges.report.text import DASH, SPACE, count, known, number, words

# criterion -> its short name, what is measured, and on which side of its bar it is met
CRITERIA = {
    "dense_accuracy": ("dense accuracy", "share of held-out prompts that the dense model decides rightly", "≥"),
    "circuit_found": ("circuit found", "loss on the training pairs that the search for a circuit ended at, nats", "≤"),
    "circuit_accuracy": ("circuit accuracy", "share of held-out prompts that the circuit alone decides rightly", "≥"),
    "control_sufficiency": ("sufficiency", "held-out loss with every other node at its mean, nats", "≤"),
    "control_resample": ("resample", "held-out loss with every other node at its value in random text, nats", "≤"),
    "control_necessity": (
        "necessity",
        "loss of the sparse model without the circuit, nats; the bar: nearly all random sets of as many are below",
        ">",
    ),
    "control_random_circuits": (
        "random circuits",
        "loss of the circuit’s nodes alone, nats; the bar: nearly all random sets of as many are above",
        "<",
    ),
    "control_interchange": (
        "interchange",
        "share of prompts that circuit and sparse model decide alike while nodes take their values on the other prompt",
        "≥",
    ),
    "control_stochastic": ("stochastic", "worst loss with random shares of the other nodes at their means, nats", "≤"),
    "control_adversarial": (
        "adversarial",
        "loss under the most harmful choice of a few other nodes that was found, nats",
        "≤",
    ),
    "control_nonsense": ("nonsense", "nodes; the bar: what meaningless labels need, by the ratio asked for", "≤"),
    "control_random_weights": ("random weights", "nodes; the bar: what shuffled weights need, by the ratio", "≤"),
    "control_seeds": ("seeds", "overlap of the circuits that other seeds find (Jaccard index)", "≥"),
    "decision_agreement": ("agreement", "share of held-out prompts that circuit and dense model decide alike", "≥"),
    "share_moved": ("share moved", "share of the dense logit difference that the circuit moves across its bridge", "≥"),
    "beats_nulls": (
        "beats nulls",
        "share moved beyond the best null: a random or shuffled change of equal size, or the tokens’ embeddings alone",
        ">",
    ),
    "necessity": (
        "dense necessity",
        "rise of the dense loss without the circuit’s channels beyond that without others, or of a random change, nats",
        ">",
    ),
    "dense_to_sparse": (
        "dense to sparse",
        "share of prompts the circuit decides rightly from the dense stream; above shuffled encoders and no circuit",
        "≥",
    ),
    "beats_difference_of_means": ("beats means", "share moved beyond that of a difference of means of equal size", "≥"),
}
CONTROL = "control_"
WHOLE = ("control_nonsense", "control_random_weights")  # counts of nodes


def short(criterion: str) -> str:
    """Its name in print."""
    name = CRITERIA[criterion][0] if criterion in CRITERIA else words(criterion.removeprefix(CONTROL))
    return f"{name} control" if criterion.startswith(CONTROL) else name


def named(criterion: str, meaning: str = "") -> Raw:
    """Its name with what is measured below."""
    said = CRITERIA[criterion][1] if criterion in CRITERIA else meaning
    return join([html(short(criterion)), tag("span", said, class_="means") if said else ""])


def amount(criterion: str, value: Any) -> str:
    """What was measured, in print."""
    return count(value) if criterion in WHOLE and known(value) and float(value).is_integer() else number(value)


def asked(criterion: str, threshold: Any) -> str:
    """The bar with the side on which it is met."""
    sign = CRITERIA[criterion][2] if criterion in CRITERIA else ""
    return f"{sign}{SPACE}{amount(criterion, threshold)}".strip() if known(threshold) else DASH


def why(rows: list[dict[str, Any]]) -> str:
    """What decided one verdict: the criteria that failed, those that alone rule it out first."""
    failed = [r for r in rows if not r["passed"]]
    if not failed:
        return f"All {count(len(rows))} criteria are met."
    search = next((r for r in failed if r["criterion"] == "circuit_found"), None)
    if search and known(search["value"]):
        return (
            f"The search ended at a loss of {number(search['value'])} nats on the training pairs, above the "
            f"{number(search['threshold'])} asked for; without a circuit nothing further was tried."
        )

    parts = [("Ruled out by", [r for r in failed if r["veto"]]), ("Not met", [r for r in failed if not r["veto"]])]
    return " ".join(f"{start}: {', '.join(map(_shortfall, which))}." for start, which in parts if which)


def _shortfall(row: dict[str, Any]) -> str:
    name, value = row["criterion"], row["value"]
    if not known(value):
        # A control without a value that vetoes did run, and found nothing of the behaviour's own to compare.
        ran = row["veto"] and name.startswith(CONTROL)
        return f"{short(name)} ({'own circuit not found again' if ran else 'not measured'})"
    beside = f"asked{SPACE}{asked(name, row['threshold'])}" if known(row["threshold"]) else ""
    if known(row["p_adjusted"]):
        beside += f", corrected p {number(row['p_adjusted'])}"
    elif known(row["value_low"]) and beside.startswith(f"asked{SPACE}≥") and value >= row["threshold"]:
        beside += f", but its interval begins at {number(row['value_low'])}"
    return f"{short(name)} {amount(name, value)} ({beside})"


def overview(source: Source) -> Raw:
    """Every criterion, and how many behaviours met it."""
    rows = source.rows("evidence")
    if not rows:
        return note(source.missing("evidence"))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["criterion"], []).append(row)
    order = [*(name for name in CRITERIA if name in found), *(name for name in found if name not in CRITERIA)]
    data = table(
        "Criteria, and how many behaviours met each of those it was measured on",
        ["criterion", "met", "bar", "veto"],
        [
            [
                named(name, mine[0]["meaning"]),
                Num(f"{count(sum(bool(r['passed']) for r in mine))}/{count(sum(known(r['value']) for r in mine))}"),
                _bars(name, mine),
                "veto" if mine[0]["veto"] else "",
            ]
            for name in order
            for mine in [found[name]]
        ],
    )
    rules = tag(
        "p",
        "“Reproduced” needs every criterion; “partial” needs every veto, and one way across the bridges: share moved "
        "or dense to sparse. What was not measured is not met. Losses are two-way, in nats; chance is 0.693.",
    )
    return details("What a verdict asks for", join([rules, data]), "data rules")


def _bars(name: str, rows: list[dict[str, Any]]) -> str:
    bars = {asked(name, r["threshold"]) for r in rows}
    return bars.pop() if len(bars) == 1 else "its own for each behaviour"
