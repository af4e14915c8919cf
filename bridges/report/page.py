"""The page as a whole, and its file."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from bridges.report.behaviours import behaviour_sections
from bridges.report.charts import Figures
from bridges.report.fidelity import fidelity_section
from bridges.report.markup import Raw, facts, html, join
from bridges.report.source import Source
from bridges.report.training import settings_section, training_section
from bridges.report.verdicts import behaviour_order, headline, subtitle, verdict_section

STYLE = ("report.css",)
SCRIPTS = ("draw.js", "chart.js", "layout.js", "inspector.js", "graph.js", "report.js")
PARTS = (
    ("verdicts", "Verdicts"),
    ("fidelity", "Fidelity"),
    ("behaviours", "Behaviours"),
    ("training", "Training"),
    ("settings", "Settings"),
)


def report_html(folder: str | Path) -> str:
    """The page of the run in ``folder``: the same tables give the same text.

    Raises:
        CheckpointError: there is no run there, or one of its files is damaged.
    """
    source, figures = Source(folder), Figures()
    anchors = {name: f"behaviour-{i}" for i, name in enumerate(behaviour_order(source))}
    # In the order of the page, so that its charts are numbered from the top.
    body = join(
        [
            verdict_section(source, figures, anchors),
            fidelity_section(source, figures),
            behaviour_sections(source, figures, anchors),
            training_section(source, figures),
            settings_section(source),
        ]
    )
    title = headline(source)
    return Template(_asset("page.html")).substitute(
        title=html(title),
        style="\n".join(map(_asset, STYLE)),
        facts=facts(subtitle(source)),
        navigation=_navigation(),
        body=body,
        data=embedded({"charts": figures.charts, "graphs": figures.graphs, "texts": list(figures.texts)}),
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


def _navigation() -> Raw:
    return join(f'<li><a href="#{name}">{title}</a></li>' for name, title in PARTS)


def _asset(name: str) -> str:
    return files("bridges.report").joinpath(name).read_text(encoding="utf-8").strip()
