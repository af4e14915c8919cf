"""How near the sparse model and the mixed passes are to the dense model, and what stands beside that as a measure."""

from __future__ import annotations

from bridges.report.charts import Chart, Figures, Series
from bridges.report.depth import axis, bridge_labels
from bridges.report.markup import Num, Raw, details, note, section, table, tag
from bridges.report.source import Source
from bridges.report.text import count, known, measured, number, percent, words

DIRECTIONS = (("d2s", "dense → sparse"), ("s2d", "sparse → dense"))
SETS = (
    ("trained", "trained bridges", "first"),
    ("ridge", "ridge regression", "third"),
    ("untrained", "untrained", "fourth"),
)
KINDS = {
    "pure_sparse": "sparse model alone",
    "bigram": "bigram table",
    "single_d2s": "dense → sparse",
    "single_s2d": "sparse → dense",
    "round_trip_dense": "round trip from dense",
    "round_trip_sparse": "round trip from sparse",
    "double_dsd": "dense → sparse → dense",
    "double_sds": "sparse → dense → sparse",
}


def fidelity_section(source: Source, figures: Figures) -> Raw:
    """Single crossings per bridge, all paths, likeness of the streams and the budget of every matrix."""
    return section(
        "fidelity",
        "Fidelity of the bridges",
        [_crossings(source, figures), _paths(source, figures), _likeness(source, figures), _budget(source)],
    )


def _crossings(source: Source, figures: Figures) -> Raw:
    rows = source.rows("sites")
    if not rows:
        return note(source.missing("sites"))
    named = bridge_labels(rows)
    bridges, labels = list(named), list(named.values())
    rules = []
    for kind, name in (("bigram", "bigram table"), ("pure_sparse", "sparse model alone")):
        values = [r["kl"] for r in source.rows("paths") if r["kind"] == kind and known(r["kl"])]
        if values:
            rules.append((name, float(values[0])))
    panels = []
    for key, title in DIRECTIONS:
        drawn = [Series(name, look) for _, name, look in SETS]
        for (which, _, _), line in zip(SETS, drawn, strict=True):
            for row in sorted((r for r in rows if r["bridges"] == which), key=lambda r: r["bridge"]):
                kl = f"kl_{key}"
                line.add(bridges.index(row["bridge"]), row[kl], row[f"{kl}_low"], row[f"{kl}_high"])
        kl_axis = "KL to the dense model (nats per token)"
        panels.append(Chart("lines", title, axis(named), kl_axis, drawn, rules=rules, ticks=labels, log_y=True))
    data = table(
        "Single crossings: KL to the dense model in nats per token with 95 % intervals, and unexplained variance (FVU)",
        ["bridge", "bridges", "KL d→s", "KL s→d", "FVU encoder", "FVU decoder"],
        [
            [
                labels[bridges.index(r["bridge"])],
                r["bridges"],
                Num(measured(r, "kl_d2s")),
                Num(measured(r, "kl_s2d")),
                Num(number(r["fvu_encoder"])),
                Num(number(r["fvu_decoder"])),
            ]
            for r in sorted(rows, key=lambda r: (r["bridge"], [s[0] for s in SETS].index(r["bridges"])))
        ],
    )
    caption = (
        "The pass begins in one model and crosses to the other once, at the bridge on the axis. Lower is nearer to "
        "the dense model; bars are 95 % intervals over sequences. A bridge that says no more than the bigram table or "
        "an untrained one carries nothing."
    )
    return figures.figure("One crossing at each bridge", panels, caption, data)


def _paths(source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.rows("paths") if r["kind"] != "pure_dense"]
    if not rows:
        return note(source.missing("paths"))
    kinds = [kind for kind in KINDS if any(r["kind"] == kind for r in rows)]
    drawn = [Series(name, look, line=False) for _, name, look in SETS]
    alone = Series("no bridge crossed", "plain", line=False)
    for row in rows:
        if not row["crossings"]:
            alone.add(kinds.index(row["kind"]), row["kl"])
            continue
        for (which, _, _), line in zip(SETS, drawn, strict=True):
            if row["bridges"] == which:
                line.add(kinds.index(row["kind"]), row["kl"])
    chart = Chart("dots", "", "", "KL to the dense model (nats per token)", [*drawn, alone], log_y=True)
    chart.ticks = [KINDS[kind] for kind in kinds]
    dense = [r for r in source.rows("paths") if r["kind"] == "pure_dense"]
    data = table(
        "Paths: cross-entropy with the next token and KL to the dense model, nats per token, 95 % intervals",
        ["path", "kind", "bridges", "crossings", "CE", "KL", "sequences"],
        [
            [
                r["path"],
                KINDS.get(r["kind"], "dense model alone"),
                r["bridges"] if known(r["bridges"]) else "none",
                Num(count(r["crossings"])),
                Num(measured(r, "ce")),
                Num(measured(r, "kl")),
                Num(count(r["n_sequences"])),
            ]
            for r in [*dense, *rows]
        ],
    )
    caption = "One mark for each path measured. A path of two crossings leaves one model and comes back to it."
    return figures.figure("Every mixed path", [chart], caption, data)


def _likeness(source: Source, figures: Figures) -> Raw:
    rows = source.rows("similarity")
    if not rows:
        return note(source.missing("similarity"))
    named = bridge_labels(rows)
    bridges, labels = list(named), list(named.values())
    names = sorted({r["quantity"] for r in rows})
    looks = ("first", "second", "third", "fourth", "fifth", "sixth")
    drawn = [Series(_quantity(name), looks[i % len(looks)]) for i, name in enumerate(names)]
    for row in rows:
        drawn[names.index(row["quantity"])].add(bridges.index(row["bridge"]), row["value"])
    chart = Chart("lines", "", axis(named), "likeness (1: alike)", drawn, ticks=labels)
    data = table(
        "Likeness of the two residual streams",
        ["bridge", "quantity", "value", "tokens"],
        [
            [labels[bridges.index(r["bridge"])], _quantity(r["quantity"]), Num(number(r["value"])), Num(count(r["n"]))]
            for r in rows
        ],
    )
    caption = (
        "Centred kernel alignment (CKA), and how much of one stream a cross-validated linear map says of the other."
    )
    return figures.figure("Likeness of the two streams", [chart], caption, data)


def _quantity(name: str) -> str:
    plain = {
        "linear_cka": "linear CKA",
        "r2_dense_to_sparse": "R² dense → sparse",
        "r2_sparse_to_dense": "R² sparse → dense",
    }
    return plain.get(name, words(name))


def _budget(source: Source) -> Raw:
    rows = source.rows("sparsity")
    if not rows:
        return note(source.missing("sparsity"))
    over = [r["matrix"] for r in rows if r["nonzeros"] > r["budget"]]
    said = f"over budget: {', '.join(over)}" if over else "every matrix is within its budget"
    data = table(
        "Nonzero entries of every weight matrix of the sparse model",
        ["matrix", "shape", "entries", "budget", "nonzero", "share"],
        [
            [
                r["matrix"],
                f"{count(r['rows'])} × {count(r['columns'])}",
                Num(count(r["numel"])),
                Num(count(r["budget"])),
                Num(count(r["nonzeros"])),
                Num(percent(r["fraction"], 2)),
            ]
            for r in rows
        ],
    )
    return Raw(
        tag("h4", "Sparsity kept")
        + tag("p", f"Of {count(len(rows))} weight matrices, {said}.")
        + details("Every matrix", data)
    )
