"""The picture of a run: models, bridges and a circuit's core in one SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from bridges.cli.report import main
from bridges.report.charts import Figures
from bridges.report.circuits import graph
from bridges.report.core_graph import ANSWER, PROMPT, core_graph
from bridges.report.examples import Examples
from bridges.report.picture import run_picture
from bridges.report.source import Source


@pytest.fixture
def planted(full):
    """The circuit that was worked out by hand, as the page holds it."""
    source, figures = Source(full), Figures()
    graph("bracket_counting", source, figures, Examples(source))
    return figures.graphs[0]["circuits"][0]


def test_the_core_is_the_nodes_of_largest_attribution_and_what_joins_them(planted):
    core = core_graph(planted, 8)
    nodes = [item for item in core.items if item.kind]
    assert len(nodes) == 8 and core.total == 17 and nodes[0].text == "neuron 242"
    by_text = {item.text: i for i, item in enumerate(core.items)}
    joined = {(link.source, link.target): link for link in core.links}
    assert joined[by_text["mlp in 7"], by_text["neuron 242"]].direct
    assert joined[by_text["attn in 5"], by_text["value 1"]].attribution == 1.0
    # A channel of the stream, and neuron 11, which belongs to no core, between its two neighbours.
    assert not joined[by_text["attn out 7"], by_text["mlp in 7"]].direct
    assert not joined[by_text["mlp in 9"], by_text["mlp out 3"]].direct
    assert {item.depth for item in core.items if not item.kind} == {PROMPT, ANSWER}
    assert all(link.source != link.target for link in core.links)


def test_the_picture_is_an_svg_by_itself_for_light_and_dark(full, nasty):
    text = run_picture(full)
    assert run_picture(full) == text
    drawing = ElementTree.fromstring(text)
    said = " ".join(drawing.itertext())
    for words in ("Dense model", "Bridges", "Sparse model", "Circuit of bracket_counting: reproduced", "neuron 242"):
        assert words in said
    assert "0.80 of 0.90" in said, "what the selected bridge moves"
    assert "prefers-color-scheme: dark" in text and not re.search(r"href|url\(|@import", text)
    # One line for each bridge, and one box for each sublayer of both models, nodes beside them.
    lines = [
        e for e in drawing.iter() if e.tag.endswith("path") and re.search(r"\b(bridge|selected)$", e.get("class", ""))
    ]
    assert len(lines) == 9
    boxes = [e for e in drawing.iter() if e.tag.endswith("rect") and e.get("class") == "box"]
    assert len(boxes) == 8 + 8 + 12
    inside = [(float(b.get("x")), float(b.get("x")) + float(b.get("width"))) for b in boxes]
    assert all(x > 0 and end < 1000 for x, end in inside)
    assert nasty not in text


def test_the_command_writes_it(full, tmp_path, make_full, capsys):
    run, out = make_full(tmp_path / "run"), tmp_path / "docs" / "picture.svg"
    assert main([str(run), "--picture", str(out), "--behaviour", "with_as"]) == 0
    assert "Circuit of with_as: partial" in out.read_text(encoding="utf-8")
    capsys.readouterr()
    for arguments, message in (
        ([str(run), "--picture", str(tmp_path / "out.png")], "must end in .svg"),
        ([str(run), "--picture", str(out), "--behaviour", "with_is"], "'with_as'"),
        ([str(run), "--behaviour", "with_as"], "--picture FILE.svg"),
        ([str(run), str(full), "--picture", str(out)], "one run"),
    ):
        assert main(arguments) == 1 and message in capsys.readouterr().err


def test_a_run_without_a_circuit_says_which_stage_is_missing(make_old, tmp_path, capsys):
    assert main([str(make_old(tmp_path / "old")), "--picture", str(tmp_path / "out.svg")]) == 1
    assert "has no circuit to draw" in capsys.readouterr().err
