"""The seven verdicts: their signs and meanings, how many there are of each, and the order of the behaviours."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any

from bridges.report.markup import Raw, html
from bridges.report.source import Source
from bridges.report.text import SPACE, count, known
from bridges.storage.tables.verdicts import VERDICTS

# verdict -> its sign, which tells it apart without colour, and its class
SIGNS = {
    "reproduced": ("●", "yes"),
    "partial": ("◐", "part"),
    "undecided": ("◌", "open"),
    "not": ("○", "no"),
    "last token suffices": ("⇥", "off"),
    "dense model cannot": ("–", "off"),
    "not expressible": ("∅", "off"),
}
MEANINGS = {
    "reproduced": "a small, faithful and necessary circuit of the sparse model, and the same computation both ways",
    "partial": "faithful and necessary, but not small, or the same computation one way only",
    "undecided": "nothing is missed, but an interval straddles a bar: more pairs, seeds or training would tell",
    "not": "a bar is missed, with the whole interval on the wrong side",
    "last token suffices": "the answer hangs on the prompt’s last token alone, so there is nothing to search",
    "dense model cannot": "the dense model itself answers too few prompts rightly",
    "not expressible": "this tokenizer has no such prompts",
}
# Verdicts on behaviours that the dense model does and that a circuit could be judged on.
JUDGED = ("reproduced", "partial", "undecided", "not")


def label(verdict: str) -> str:
    """The verdict as a reader says it."""
    return "not reproduced" if verdict == "not" else verdict


def badge(verdict: str, robust: object = None) -> Raw:
    """The verdict with its sign, and ``robust`` where every measured robustness criterion held."""
    sign, kind = SIGNS[verdict]
    more = ", robust" if known(robust) and bool(robust) and verdict in JUDGED else ""
    shown = f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {html(label(verdict) + more)}</span>'
    return Raw(shown)


def weaker_way(row: dict[str, Any]) -> float:
    """The smaller of the two shares of the ceiling, dense to sparse and back; 0 where either is missing."""
    shares = []
    for moved, ceiling in (("share_moved", "ceiling"), ("share_back", "ceiling_back")):
        if not known(row.get(moved)) or not known(row.get(ceiling)) or row[ceiling] <= 0:
            return 0.0
        shares.append(float(row[moved] / row[ceiling]))
    return min(shares)


def verdict_rows(source: Source) -> dict[str, dict[str, Any]]:
    """Table ``verdicts`` by behaviour."""
    return {row["behaviour"]: row for row in source.rows("verdicts")}


def behaviour_order(source: Source) -> list[str]:
    """Every behaviour of the run: by verdict, then robust ones and those with the smallest circuit first."""
    names: dict[str, None] = {}
    for table in ("suite", "verdicts", "behaviours", "circuits"):
        names |= {row["behaviour"]: None for row in source.rows(table)}
    rows = verdict_rows(source)

    def rank(name: str) -> tuple[Any, ...]:
        row = rows.get(name)
        if row is None:
            return (len(VERDICTS), True, inf, 0.0)
        robust = known(row.get("robust")) and bool(row["robust"])
        nodes = row["nodes"] if known(row.get("nodes")) else inf
        return (VERDICTS.index(row["verdict"]), not robust, nodes, -weaker_way(row))

    return sorted(names, key=rank)


def model_name(source: Source) -> str:
    """What the dense model is called."""
    return str(source.setting("model.label") or source.setting("model.name") or "the dense model")


def answer(source: Source) -> str:
    """The question answered in one sentence, with counts."""
    model, rows = model_name(source), source.rows("verdicts")
    if not rows:
        return f"{model} beside a weight-sparse model: no verdict has been given yet."
    counts = Counter(row["verdict"] for row in rows)
    judged = sum(counts[verdict] for verdict in JUDGED)
    if not judged:
        return f"None of the {count(len(rows))}{SPACE}behaviours of {model} could be judged."
    found = counts["reproduced"]
    # Whoever names some of a suite learns nothing of the rest.
    chosen = "selected " if source.setting("behaviours.names") else ""
    if judged == 1:
        said = f"{'A' if found else 'No'} sparse circuit reproduces the one {chosen}behaviour that {model} does"
    else:
        said = f"Sparse circuits reproduce {count(found) if found else 'none'} of the {count(judged)}{SPACE}{chosen}"
        said += f"behaviours that {model} does"
    rest = [
        f"{count(counts[verdict])} {words}"
        for verdict, words in (("partial", "more in part"), ("undecided", "undecided"), ("not", "not reproduced"))
        if counts[verdict]
    ]
    if found == 0 and counts["partial"]:
        rest[0] = f"{count(counts['partial'])} in part"
    return f"{said}: {_listed(rest)}." if rest else f"{said}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
