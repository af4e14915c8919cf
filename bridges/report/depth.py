"""Where along depth each model moves the information: the share moved at every bridge, against its ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridges.report.charts import Chart, Figures, Series
from bridges.report.markup import Num, Raw, html, note, table
from bridges.report.source import Source
from bridges.report.text import brief, count, escape, known, measured, words

# measurement -> panel title, and its curves: direction, name, look; the ceiling first
WAYS = {
    "interchange": (
        "Sparse → dense: share of the dense logit difference moved",
        (
            ("dense", "ceiling: the dense model’s own exchange", "ceiling"),
            ("sparse", "whole sparse model", "third"),
            ("circuit", "circuit alone", "first"),
        ),
    ),
    "dense_to_sparse": (
        "Dense → sparse: share of the circuit’s logit difference moved",
        (
            ("circuit", "ceiling: the circuit’s own exchange", "ceiling"),
            ("dense", "dense model’s change, encoded", "first"),
        ),
    ),
}
NULLS = {
    "random_directions": ("random directions", "second"),
    "other_channels": ("other channels", "fourth"),
    "shuffled_bridge": ("shuffled bridge", "fifth"),
    "untrained_bridge": ("untrained bridge", "sixth"),
}
WIDTH, HEIGHT, EDGE = 132, 40, 4

Rows = list[dict[str, Any]]


def shares(rows: Rows, measurement: str) -> dict[str, Rows]:
    """Rows of ``share_moved`` of one measurement by direction, in the order of the bridges."""
    found: dict[str, Rows] = {}
    for row in sorted(rows, key=lambda r: r["bridge"]):
        if row["measurement"] == measurement and row["quantity"] == "share_moved" and known(row["value"]):
            found.setdefault(row["direction"], []).append(row)
    return found


def bridge_labels(rows: Rows) -> dict[int, str]:
    """How bridges are written on an axis: dense·sparse site, or one number where the two are always the same."""
    named = {int(r["bridge"]): f"{int(r['dense_site'])}·{int(r['sparse_site'])}" for r in rows}
    if all(r["dense_site"] == r["sparse_site"] for r in rows):
        named = {bridge: text.split("·")[0] for bridge, text in named.items()}
    return dict(sorted(named.items()))


def axis(labels: Mapping[int, str]) -> str:
    """The name of an axis of bridges."""
    return "bridge, by dense·sparse site" if any("·" in text for text in labels.values()) else "bridge, by site"


def spark(rows: Rows) -> Raw:
    """The interchange at every bridge as a small curve: ceiling, whole sparse model and circuit."""
    found = shares(rows, "interchange")
    if not found:
        return Raw("")
    bridges = [int(row["bridge"]) for direction in found.values() for row in direction]
    first, last = min(bridges), max(bridges)

    def point(row: dict[str, Any]) -> tuple[float, float]:
        x = EDGE + (WIDTH - 2 * EDGE) * (row["bridge"] - first) / max(1, last - first)
        return x, HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * min(1.0, max(0.0, float(row["value"])))

    curves = [(d, found[d]) for d, _, _ in WAYS["interchange"][1] if d in found and len(found[d]) > 1]
    parts = []
    for direction, curve in curves:
        places = [point(row) for row in curve]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        if direction == "dense":
            parts.append(f'<path class="under" d="M{places[0][0]:.1f} {HEIGHT - EDGE}L{line}V{HEIGHT - EDGE}Z"/>')
        parts.append(f'<path class="{direction}" d="M{line}"/>')
    selected = next((row for row in found.get("circuit", []) if row["selected"]), None)
    said = "Share moved over depth"
    if selected is not None:
        x, y = point(selected)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
        ceiling = next((row for row in found.get("dense", []) if row["selected"]), None)
        of = "" if ceiling is None else f" of {brief(ceiling['value'])}"
        said += f": at bridge {selected['bridge']} the circuit moves {brief(selected['value'])}{of}"
    return Raw(
        f'<svg class="spark" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(said)}"><title>{html(said)}</title>'
        f'<path class="axis" d="M{EDGE} {HEIGHT - EDGE}H{WIDTH - EDGE}"/>{"".join(parts)}</svg>'
    )


def depth_chart(rows: Rows, measurement: str) -> Chart | None:
    """One way across the bridges in large; None where nothing was measured."""
    found = shares(rows, measurement)
    title, curves = WAYS[measurement]
    every = [row for direction in found.values() for row in direction]
    if not every:
        return None
    labels = bridge_labels(every)
    place = list(labels).index
    drawn = []
    for direction, name, look in (*curves, *((d, *named) for d, named in NULLS.items())):
        series = Series(name, look, line=direction not in NULLS)
        for row in found.get(direction, []):
            series.add(place(row["bridge"]), row["value"], row["value_low"], row["value_high"])
        drawn.append(series)
    chart = Chart("lines", title, axis(labels), "share moved", drawn, ticks=list(labels.values()), unit=True)
    selected = next((row["bridge"] for row in every if row["selected"]), None)
    if selected is not None:
        chart.marked = (place(selected), "selected on training pairs")
    return chart


def depth_figure(name: str, source: Source, figures: Figures) -> Raw:
    """Both ways across the bridges, with everything that table ``transfer`` says of shares as a table."""
    rows = [row for row in source.rows("transfer") if row["behaviour"] == name]
    panels = [chart for chart in (depth_chart(rows, way) for way in WAYS) if chart is not None]
    if not panels:
        said = source.missing("transfer") if not rows else "No change was moved across a bridge."
        return note(said)
    shown = [r for r in rows if r["quantity"].startswith("share") and r["measurement"] in WAYS]
    data = table(
        "Shares moved across the bridges, with 95 % intervals",
        ["measurement", "bridge", "sites", "direction", "quantity", "value", "selected", "p", "pairs"],
        [
            [
                words(r["measurement"]),
                Num(count(r["bridge"])),
                f"{r['dense_site']}·{r['sparse_site']}",
                words(r["direction"]),
                words(r["quantity"]),
                Num(measured(r, "value")),
                "selected" if r["selected"] else "",
                Num(brief(r["p_value"])) if known(r["p_value"]) else "",
                Num(count(r["n_pairs"])),
            ]
            for r in shown
        ],
        limit=400,
    )
    caption = (
        "At positions whose token is the same in both prompts, one prompt’s state is replaced by the other’s. 1 means "
        "that the logit difference is turned around in full; the ceiling is the model’s own exchange there. Single "
        "marks are changes of the same size that must not work; bars are 95 % intervals."
    )
    return figures.figure("Where along depth the information is moved", panels, caption, data, columns=1)
