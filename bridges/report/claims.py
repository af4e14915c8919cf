"""What a verdict claims: every criterion with its value, interval and bar, and how robust the circuit is."""

from __future__ import annotations

import math
from typing import Any

from bridges.report.markup import STATES, Num, Raw, html, join, note, state, tag
from bridges.report.source import Source
from bridges.report.text import DASH, brief, escape, interval, known, words

# claim -> what it says
CLAIM_SENTENCES = {
    "done": "The dense model does it, and not from the last token alone.",
    "sufficient": "The circuit alone explains the sparse model.",
    "necessary": "Without the circuit the sparse model loses the behaviour.",
    "small": "It is smaller than the dense model’s own circuit, and than one of a meaningless task.",
    "same computation": "Across a bridge, what the circuit carries moves the dense model, and back.",
}
ROBUSTNESS = "robustness"
# Size of the picture of one criterion.
WIDTH, HEIGHT = 168, 20


def claim_state(rows: list[dict[str, Any]]) -> str:
    """The state of a claim from those of its criteria: missed before open before not measured before held."""
    states = {row["state"] for row in rows}
    return next((s for s in ("missed", "open", "not measured") if s in states), "held" if states else "not measured")


def claim_strip(rows: list[dict[str, Any]]) -> Raw:
    """The five claims as five signs."""
    signs = []
    for claim in CLAIM_SENTENCES:
        found = claim_state([row for row in rows if row["claim"] == claim])
        sign, look = STATES[found]
        signs.append(f'<span class="{look}" title="{escape(claim)}: {found}" aria-hidden="true">{sign}</span>')
    spoken = ", ".join(
        f"{claim} {claim_state([row for row in rows if row['claim'] == claim])}" for claim in CLAIM_SENTENCES
    )
    return Raw(f'<span class="strip">{"".join(signs)}<span class="spoken">Claims: {html(spoken)}.</span></span>')


def claims_table(rows: list[dict[str, Any]], source: Source) -> Raw:
    """Every criterion of the five claims, then of robustness, which stands beside the verdict."""
    if not rows:
        return note(source.missing("claims"))
    bodies = []
    for place, (claim, sentence) in enumerate(CLAIM_SENTENCES.items(), 1):
        criteria = [row for row in rows if row["claim"] == claim]
        if criteria:
            bodies.append(_body(f"{place}. {claim.capitalize()}.", sentence, claim_state(criteria), criteria))
    criteria = [row for row in rows if row["claim"] == ROBUSTNESS]
    if not criteria:
        return join([_table("Criteria with 95 % intervals", bodies), note("Nothing further was asked for.")])
    tried = [row for row in criteria if row["state"] != "not measured"]
    held = sum(row["state"] == "held" for row in tried)
    said = f"{held} of {len(tried)} measured criteria held. The verdict does not hang on them."
    bodies.append(_body("Robustness.", said if tried else "It was not measured.", claim_state(tried), criteria))
    return _table("Criteria with 95 % intervals", bodies)


def _body(title: str, sentence: str, found: str, criteria: list[dict[str, Any]]) -> str:
    head = (
        f'<tr class="claim"><th colspan="4" scope="colgroup"><b>{html(title)}</b> {html(sentence)}</th>'
        f"<td>{state(found)}</td></tr>"
    )
    return f"<tbody>{head}\n{join(map(_criterion, criteria))}</tbody>"


def _table(caption: str, bodies: list[str]) -> Raw:
    headings = "".join(
        f'<th scope="col"{look}>{name}</th>'
        for name, look in (
            ("criterion", ""),
            ("value [interval]", ' class="n"'),
            ("bar", ' class="n"'),
            ("where the interval lies", ' class="picture"'),
            ("state", ""),
        )
    )
    return Raw(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="claims">'
        f"<caption><span>{html(caption)}</span></caption>\n<thead><tr>{headings}</tr></thead>\n{join(bodies)}</table></div>"
    )


def _criterion(row: dict[str, Any]) -> str:
    value = f"{brief(row['value'])} {interval(row['value_low'], row['value_high'], short=True)}".rstrip()
    p = f", corrected p {brief(row['p_adjusted'])}" if known(row["p_adjusted"]) else ""
    bar = f"{'≥' if row['at_least'] else '≤'}\u00a0{brief(row['bar'])}" if known(row["bar"]) else DASH
    name = tag("span", row["meaning"], class_="means") if row["meaning"] else Raw("")
    cells = [
        f'<th scope="row">{html(words(row["criterion"]))}{name}</th>',
        f'<td class="n">{html(Num(value + p))}</td>',
        f'<td class="n">{html(bar)}</td>',
        f'<td class="picture">{_picture(row)}</td>',
        f"<td>{state(row['state'])}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _picture(row: dict[str, Any]) -> str:
    """The interval on a line, with the bar and its good side shaded."""
    value, bar = row["value"], row["bar"]
    if not known(value) or not known(bar) or not math.isfinite(value):
        return ""
    low, high = (float(row[f"value_{end}"]) if known(row[f"value_{end}"]) else float(value) for end in ("low", "high"))
    least, most = min(low, value, bar), max(high, value, bar)
    # Shares are all drawn on the same scale.
    start, stop = (0.0, 1.0) if least >= 0 and most <= 1 else (least, most)
    if (start, stop) != (0.0, 1.0):
        room = 0.12 * (stop - start) or 1.0
        start, stop = (0.0 if 0 <= start < room else start - room), stop + room

    def x(v: float) -> str:
        return f"{2 + (WIDTH - 4) * (v - start) / (stop - start):.1f}"

    middle = HEIGHT / 2
    good = (x(bar), f"{WIDTH - 2}") if row["at_least"] else ("2", x(bar))
    look = STATES[row["state"]][1]
    return (
        f'<svg class="interval {look}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'aria-hidden="true">'
        f'<path class="good" d="M{good[0]} {middle}H{good[1]}"/><path class="track" d="M2 {middle}H{WIDTH - 2}"/>'
        f'<path class="ends" d="M{x(low)} {middle}H{x(high)}"/><path class="bar" d="M{x(bar)} 2V{HEIGHT - 2}"/>'
        f'<circle cx="{x(value)}" cy="{middle}" r="3.6"/></svg>'
    )
