"""The top of the page: what the run found, one sentence for each behaviour."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bridges.report.charts import Chart, Figures, Series
from bridges.report.criteria import overview, short, why
from bridges.report.markup import Num, Raw, html, join, note, section, table, tag
from bridges.report.source import Source
from bridges.report.text import count, counted, interval, known, number, percent
from bridges.storage.tables.verdicts import VERDICTS

# verdict -> its sign, which tells it apart without colour, and its class
SIGNS = {
    "reproduced": ("●", "yes"),
    "partial": ("◐", "part"),
    "not": ("○", "no"),
    "dense model cannot": ("–", "off"),
    "not expressible": ("∅", "off"),
}
MEANING = {
    "reproduced": "a sparse circuit does it and moves the dense model, and every criterion is met",
    "partial": "no veto failed, and the circuit works across the bridges one way, but not every criterion is met",
    "not": "the dense model does it, but no circuit was found, a veto failed, or nothing crosses the bridges",
    "dense model cannot": "the dense model itself decides too few prompts rightly: there is nothing to explain",
    "not expressible": "the tokenizer has no such prompts",
}


def badge(verdict: str) -> Raw:
    """The verdict with its sign."""
    sign, kind = SIGNS.get(verdict, ("?", "off"))
    label = "not reproduced" if verdict == "not" else verdict
    return Raw(f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {html(label)}</span>')


def behaviour_order(source: Source) -> list[str]:
    """Every behaviour of the run: by verdict, the ones nearest to the next better verdict first.

    Within a verdict those with a circuit come before those without, then those that failed fewer criteria.
    """
    names: dict[str, None] = {}
    for name in ("suite", "verdicts", "behaviours", "circuits"):
        names |= {row["behaviour"]: None for row in source.rows(name)}
    rank = {
        row["behaviour"]: (
            VERDICTS.index(row["verdict"]),
            not known(row.get("nodes")),
            len(row["failed"].split(",")) if known(row.get("failed")) else 0,
        )
        for row in source.rows("verdicts")
    }
    return sorted(names, key=lambda name: rank.get(name, (len(VERDICTS), True, 0)))


def headline(source: Source) -> str:
    """The finding in one line."""
    label = source.setting("model.label") or source.setting("model.name") or "The dense model"
    verdicts = [row["verdict"] for row in source.rows("verdicts")]
    if not verdicts:
        return f"{label} beside a weight-sparse model"
    tried = [v for v in verdicts if v not in ("dense model cannot", "not expressible")]
    kept = Counter(tried)["reproduced"]
    if not tried:
        return f"{label}: none of {counted(len(verdicts), 'behaviour')} could be asked"
    return f"{label}: {kept} of {counted(len(tried), 'behaviour')} reproduced by a sparse circuit"


def subtitle(source: Source) -> list[tuple[str, str]]:
    """Names and values of what the models are."""
    facts = [("Dense model", str(source.setting("model.label") or source.setting("model.name") or "unknown"))]
    promised = source.setting("sparsity")
    if promised is not None:
        facts.append(("Sparsity asked for", percent(promised, 3 if promised < 0.01 else 1)))
    sparsity = source.table("sparsity")
    if sparsity is not None:
        kept, numel = int(sparsity["nonzeros"].sum()), int(sparsity["numel"].sum())
        facts.append(("Nonzero weights", f"{count(kept)} of {count(numel)} ({percent(kept / max(numel, 1), 2)})"))
    training = source.table("training")
    if training is not None:
        facts.append(("Trained on", f"{count(training['tokens'].max())} tokens"))
    sites = source.table("sites")
    if sites is not None:
        facts.append(("Measured on", f"{counted(sites['n_sequences'].iloc[0], 'held-out sequence')}"))
    seed = source.setting("seed")
    if seed is not None:
        facts.append(("Seed", str(seed)))
    return facts


def verdict_section(source: Source, figures: Figures, anchors: dict[str, str]) -> Raw:
    """The verdicts as a list of sentences, then accuracies and circuit sizes of all behaviours side by side."""
    rows = {row["behaviour"]: row for row in source.rows("verdicts")}
    if not rows:
        return section("verdicts", "Verdicts", [note(source.missing("verdicts"))])
    ordered = [rows[name] for name in anchors if name in rows]
    intervals = _intervals(source)
    evidence: dict[str, list[dict[str, Any]]] = {}
    for row in source.rows("evidence"):
        evidence.setdefault(row["behaviour"], []).append(row)

    def reason(row: dict[str, Any]) -> Raw:
        mine = evidence.get(row["behaviour"])
        said = why(mine) if mine else row["reason"]
        return tag("p", said, class_="reason") if said else Raw("")

    items = join(
        tag(
            "li",
            join(
                [
                    badge(row["verdict"]),
                    Raw(f'<a href="#{anchors[row["behaviour"]]}">{html(row["behaviour"])}</a>'),
                    tag("p", sentence(row, intervals)),
                    reason(row),
                ]
            ),
            class_="verdict",
        )
        for row in ordered
    )
    counts = Counter(row["verdict"] for row in ordered)
    tally = join(
        tag("li", join([badge(v), Raw(f"<b>{counts[v]}</b> <span>{html(MEANING[v])}</span>")]))
        for v in VERDICTS
        if counts[v]
    )
    parts = [tag("ul", tally, class_="tally"), overview(source), tag("ol", items, class_="verdicts")]
    return section("verdicts", "Verdicts", [*parts, _glance(ordered, figures)])


def sentence(row: dict[str, Any], intervals: dict[tuple[str, str], str]) -> str:
    """One verdict with the numbers it stands on."""
    name, verdict = row["behaviour"], row["verdict"]

    def accuracy(model: str) -> str:
        return f"{percent(row[f'{model}_accuracy'])} {intervals.get((name, model), '')}".rstrip()

    if verdict == "not expressible":
        return "The tokenizer cannot express it as one of two next tokens."
    if verdict == "dense model cannot":
        return f"The dense model itself decides only {accuracy('dense')} of held-out prompts rightly."
    clauses = []
    if known(row.get("nodes")) and known(row["circuit_accuracy"]):
        size = (
            f"A circuit of {counted(row['nodes'], 'node')} and {counted(row.get('edges'), 'edge')}"
            if row["nodes"]
            else "An empty circuit, with every node at its mean,"
        )
        dense = (
            f" (the dense model’s own circuit: {count(row['dense_edges'])})" if known(row.get("dense_edges")) else ""
        )
        clauses.append(
            f"{size}{dense} decides {percent(row['circuit_accuracy'])} of held-out prompts rightly, "
            f"the sparse model {accuracy('sparse')}, the dense model {accuracy('dense')}"
        )
    elif known(row["dense_accuracy"]):
        clauses.append(
            f"No circuit was found; the sparse model decides {accuracy('sparse')} of held-out prompts rightly, "
            f"the dense model {accuracy('dense')}"
        )
    if known(row["agreement"]):
        clauses.append(f"circuit and dense model decide {percent(row['agreement'])} of prompts alike")
    if known(row["share_moved"]):
        ends = intervals.get((name, "share_moved")) or (
            f"(interval from {percent(row['share_moved_low'])})" if known(row["share_moved_low"]) else ""
        )
        null = f", the best null {percent(row['share_moved_null'])}" if known(row["share_moved_null"]) else ""
        moved = f"{percent(row['share_moved'])} {ends}".rstrip()
        clauses.append(f"carried through the bridges it moves {moved} of the dense logit difference{null}")
    return "; ".join(clauses) + "." if clauses else "Nothing was measured."


def _intervals(source: Source) -> dict[tuple[str, str], str]:
    """Interval in print by behaviour and by `dense`, `sparse` (accuracy) or `share_moved`."""
    found = {}
    for row in source.rows("behaviours"):
        if row["split"] == "heldout" and row["model"] in ("dense", "sparse"):
            key = (row["behaviour"], row["model"])
            found[key] = interval(row["accuracy_low"], row["accuracy_high"], share=True)
    # The verdict's table has the lower end only; the evidence it was taken from has both.
    moved = {row["behaviour"]: (row["share_moved"], row["share_moved_low"]) for row in source.rows("verdicts")}
    for row in source.rows("evidence"):
        if moved.get(row["behaviour"]) == (row["value"], row["value_low"]):
            found[(row["behaviour"], "share_moved")] = interval(row["value_low"], row["value_high"], share=True)
    return found


def _glance(rows: list[dict[str, Any]], figures: Figures) -> Raw:
    asked = [row for row in rows if row["verdict"] != "not expressible"]
    models = (("dense", "dense model", "plain"), ("sparse", "sparse model", "second"), ("circuit", "circuit", "first"))
    accuracies = [Series(label, look, line=False) for _, label, look in models]
    sizes = [Series("sparse circuit", "first", line=False), Series("dense circuit", "plain", line=False)]
    for i, row in enumerate(asked):
        for (model, _, _), series in zip(models, accuracies, strict=True):
            series.add(i, row[f"{model}_accuracy"])
    sized = [row for row in asked if any(known(row.get(c)) and row[c] > 0 for c in ("edges", "dense_edges"))]
    for i, row in enumerate(sized):
        for column, series in zip(("edges", "dense_edges"), sizes, strict=True):
            if known(row.get(column)) and row[column] > 0:
                series.add(i, row[column])
    names, with_edges = ([str(row["behaviour"]) for row in some] for some in (asked, sized))
    panels = [
        Chart("dots", "Held-out accuracy", "", "share of prompts decided rightly", accuracies, ticks=names, share=True),
        Chart("dots", "Size of the circuits", "", "edges (weights kept)", sizes, ticks=with_edges, log_y=True),
    ]
    panels[0].rules = [("chance", 0.5)]
    data = table(
        "Every behaviour: accuracies on held-out prompts, edges, agreement and transfer",
        [
            "behaviour",
            "verdict",
            "dense",
            "sparse",
            "circuit",
            "nodes",
            "edges",
            "dense edges",
            "agreement",
            "correlation",
            "share moved",
            "difference of means",
            "criteria not met",
        ],
        [
            [row["behaviour"], row["verdict"]]
            + [Num(percent(row[f"{model}_accuracy"])) for model, _, _ in models]
            + [Num(count(row.get(key))) for key in ("nodes", "edges", "dense_edges")]
            + [Num(percent(row["agreement"])), Num(number(row["correlation"]))]
            + [Num(percent(row["share_moved"])), Num(percent(row["share_moved_baseline"]))]
            + [", ".join(map(short, row["failed"].split(", "))) if known(row.get("failed")) else ""]
            for row in rows
        ],
    )
    caption = (
        "Chance is 50 %. Edges are weights between kept nodes inside the blocks; the axis of sizes is logarithmic."
    )
    return figures.figure("Behaviours at a glance", panels, caption, data)
