"""The page as a whole, and its file."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from bridges.report.charts import Figures
from bridges.report.circuits import graph
from bridges.report.examples import Examples
from bridges.report.fidelity import fidelity_section
from bridges.report.markup import Raw, html, join
from bridges.report.rows import behaviour_section
from bridges.report.source import Source
from bridges.report.top import alarm, between, hero, meanings, tally
from bridges.report.training import settings_section, training_section
from bridges.report.verdicts import answer, behaviour_order

STYLES = ("base.css", "charts.css", "list.css", "graph.css", "print.css")
SCRIPTS = (
    "draw.js",
    "chart.js",
    "names.js",
    "core.js",
    "layout.js",
    "zoom.js",
    "save.js",
    "inspector.js",
    "tools.js",
    "graph.js",
    "list.js",
    "report.js",
)
PARTS = (
    ("behaviours", "Behaviours"),
    ("fidelity", "Bridges"),
    ("training", "Training"),
    ("settings", "Settings"),
)


def report_html(folder: str | Path) -> str:
    """The page of the run in ``folder``: the same tables give the same text.

    Raises:
        CheckpointError: there is no run there, or one of its files is damaged.
    """
    source, figures = Source(folder), Figures()
    examples = Examples(source)
    anchors = {name: f"behaviour-{i}" for i, name in enumerate(behaviour_order(source))}
    graphs = {name: graph(name, source, figures, examples) for name in anchors}
    first = hero(source, figures, anchors, graphs)
    body = join(
        [
            behaviour_section(source, figures, anchors, graphs),
            meanings(),
            fidelity_section(source, figures),
            training_section(source, figures),
            settings_section(source),
        ]
    )
    data = {"run": _identity(source), "names": asdict(source.names), "charts": figures.charts, "graphs": figures.graphs}
    return Template(_asset("page.html")).substitute(
        title=html(answer(source)),
        style="\n".join(map(_asset, STYLES)),
        between=html(between(source)),
        navigation=join(f'<li><a href="#{name}">{title}</a></li>' for name, title in PARTS),
        tally=Raw(alarm(source) + tally(source)),
        hero=first,
        body=body,
        data=embedded(data | examples.data()),
        script="\n".join(map(_asset, SCRIPTS)),
    )


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into the run's folder, from its tables, settings and status alone.

    Args:
        folder: a run's folder, finished or not; a section whose table is missing says which stage writes it.

    Returns:
        the file written.

    Raises:
        CheckpointError: there is no run there, or one of its files is damaged.
    """
    path = Path(folder) / "report.html"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(report_html(folder).encode("utf-8"))
    os.replace(temporary, path)
    return path


def embedded(data: Any) -> Raw:
    """JSON that may stand in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Raw(text)


def _identity(source: Source) -> str:
    """The same for equal settings: what a browser keeps a reader's names under."""
    text = json.dumps(source.config, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _asset(name: str) -> str:
    return files("bridges.report").joinpath("web", name).read_text(encoding="utf-8").strip()
