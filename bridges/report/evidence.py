"""What a circuit was put to, and the numbers that its verdict stands on."""

from __future__ import annotations

from typing import Any

from bridges.report.criteria import CONTROL, amount, asked, named, short
from bridges.report.markup import Num, Raw, details, html, join, note, passed, table, tag
from bridges.report.source import Source
from bridges.report.text import DASH, count, interval, known, measured, number, words


def controls(name: str, source: Source) -> Raw:
    """The rows that decide, then every other measurement averaged over its draws."""
    rows = [r for r in source.rows("controls") if r["behaviour"] == name]
    title = tag("h4", "Controls")
    if not rows:
        return Raw("") if source.rows("controls") else join([title, note(source.missing("controls"))])
    several = len({(r["model"], r["method"], r["seed"]) for r in rows}) > 1
    deciding = [r for r in rows if known(r.get("passed"))]
    good = sum(bool(r["passed"]) for r in deciding)
    headings = ["control", "result", "value", "bar", "compared with", "measured", "nodes", "pairs"]
    main = table(
        f"Controls: {good} of {len(deciding)} passed",
        headings,
        [
            [
                join([named(CONTROL + r["control"]), html(_make(r)) if several else ""]),
                passed(bool(r["passed"])),
                Num(amount(CONTROL + r["control"], r["value"])),
                Num(asked(CONTROL + r["control"], r["threshold"])),
                Num(number(r["reference"])),
                words(r["quantity"]),
                Num(count(r["size"])),
                Num(count(r["n_pairs"])),
            ]
            for r in sorted(deciding, key=lambda r: bool(r["passed"]))
        ],
    )
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if not known(row.get("passed")):
            key = (_label(row, several), words(row["quantity"]), row["split"], row["ablation"], row["size"])
            groups.setdefault(key, []).append(row)
    if not groups:
        return join([title, main])
    rest = table(
        "Every other measurement, averaged over draws",
        ["control", "measured", "split", "ablation", "nodes", "value", "smallest", "largest", "compared with", "draws"],
        [
            [
                label,
                quantity,
                split,
                ablation,
                Num(count(size)),
                *_spread([r["value"] for r in group]),
                Num(number(_mean([r["reference"] for r in group]))),
                Num(count(len(group))),
            ]
            for (label, quantity, split, ablation, size), group in groups.items()
        ],
    )
    return join([title, main, details("Every measurement", rest)])


def _label(row: dict[str, Any], several: bool) -> str:
    label = words(row["control"])
    return f"{label} {_make(row)}" if several else label


def _make(row: dict[str, Any]) -> str:
    return f"({row['model']}, {words(row['method'])}, seed {row['seed']})"


def _mean(values: list[float]) -> float | None:
    given = [v for v in values if known(v)]
    return sum(given) / len(given) if given else None


def _spread(values: list[float]) -> list[Num]:
    given = [v for v in values if known(v)]
    if not given:
        return [Num(DASH)] * 3
    return [Num(number(_mean(given))), Num(number(min(given))), Num(number(max(given)))]


def evidence(name: str, source: Source) -> Raw:
    """Every criterion of the verdict with its bar."""
    title = tag("h4", "Evidence for the verdict")
    rows = [r for r in source.rows("evidence") if r["behaviour"] == name]
    if not rows:
        return join([title, note(source.missing("evidence"))])
    good = sum(bool(r["passed"]) for r in rows)
    tried = [r for r in rows if known(r["value"])]
    data = table(
        f"Criteria: {good} of {len(rows)} met. One marked veto, when failed, rules out “reproduced” and “partial”",
        ["criterion", "result", "value and interval", "bar", "veto", "p", "p corrected"],
        [
            [
                named(r["criterion"], r["meaning"]),
                passed(bool(r["passed"])),
                Num(f"{amount(r['criterion'], r['value'])} {interval(r['value_low'], r['value_high'])}".rstrip()),
                Num(asked(r["criterion"], r["threshold"])),
                "veto" if r["veto"] else "",
                Num(number(r["p_value"])),
                Num(number(r["p_adjusted"])),
            ]
            for r in tried
        ],
    )
    if len(tried) < len(rows):
        left = ", ".join(short(r["criterion"]) for r in rows if not known(r["value"]))
        data = join([data, note(f"Not measured, and so not met: {left}.")])
    agreement = [r for r in source.rows("agreement") if r["behaviour"] == name]
    if not agreement:
        return join([title, data])
    more = table(
        "How far two models agree on this behaviour, with 95 % intervals",
        ["models", "quantity", "value", "prompts"],
        [
            [f"{r['first']} and {r['second']}", words(r["quantity"]), Num(measured(r, "value")), Num(count(r["n"]))]
            for r in agreement
        ],
    )
    return join([title, data, details("Agreement of the models", more)])
