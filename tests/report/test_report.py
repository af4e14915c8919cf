"""The page from a run's tables: what it says, that it needs nothing else, and that no text of a run becomes markup."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from bridges.cli.report import main
from bridges.errors import BridgesError
from bridges.report import write_report
from bridges.report.page import report_html
from bridges.report.source import Source
from bridges.report.verdicts import answer, behaviour_order
from bridges.storage.tables import read_table

from . import circuit_frames, frames
from .conftest import full_run
from .frames import Case


@pytest.fixture(scope="module")
def page(full: Path) -> str:
    return report_html(full)


def _text(page: str) -> str:
    """What a reader sees of the page, tags and scripts left out."""
    body = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def test_every_behaviour_and_reason_is_on_the_page(full, page):
    text = _text(page)
    for row in read_table(full, "verdicts").to_dict("records"):
        # Of a name that tries to be markup the page shows the characters, each in its own way.
        plain = re.fullmatch(r"[\w ]+", row["behaviour"])
        assert (not plain or row["behaviour"] in text) and row["verdict"] in text
        assert re.sub(r"\s+", " ", row["reason"]) in text, row["behaviour"]


def test_every_criterion_stands_with_its_value(full, page):
    claims, text = read_table(full, "claims"), _text(page)
    for claim in claims["claim"].unique():
        assert claim in text.lower()
    assert (
        sum(meaning.rstrip(".") in text for meaning in claims["meaning"].unique()) >= 0.9 * claims["meaning"].nunique()
    )


def test_the_answer_comes_first(page):
    title, heading = (
        re.sub(r"\s+", " ", unescape(re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)[1]))  # type: ignore[index]
        for tag in ("title", "h1")
    )
    assert (
        title
        == heading
        == (
            "Sparse circuits reproduce 2 of the 5 behaviours that tinypython does: 1 more in part, 1 undecided and "
            "1 not reproduced."
        )
    )
    # Nothing but the navigation stands before it.
    assert page.index("<h1>") < page.index("<main") and page.count("<h1>") == 1


@pytest.mark.parametrize(
    ("settings", "verdicts", "said"),
    [
        ("{}", ["reproduced", "reproduced"],
         "Sparse circuits reproduce 2 of the 2 behaviours that the dense model does."),
        ("behaviours: {names: [a, b]}", ["reproduced", "not"],
         "Sparse circuits reproduce 1 of the 2 selected behaviours that the dense model does: 1 not reproduced."),
        ("behaviours: {names: [a]}", ["reproduced"],
         "A sparse circuit reproduces the one selected behaviour that the dense model does."),
        ("{}", ["undecided"], "No sparse circuit reproduces the one behaviour that the dense model does: 1 undecided."),
    ],
)  # fmt: skip
def test_the_answer_says_of_how_many_behaviours(tmp_path, monkeypatch, settings, verdicts, said):
    (tmp_path / "config.yaml").write_text(settings)
    rows = [{"behaviour": name, "verdict": verdict} for name, verdict in zip("ab", verdicts, strict=False)]
    monkeypatch.setattr(Source, "rows", lambda self, name: rows if name == "verdicts" else [])
    assert re.sub(r"\s+", " ", answer(Source(tmp_path))) == said


def test_behaviours_stand_by_verdict_and_then_by_what_can_be_read(tmp_path, monkeypatch):
    """Robust ones and small circuits first, since a person reads from the top."""
    (tmp_path / "config.yaml").write_text("{}")
    shares = {"share_moved": 0.8, "ceiling": 1.0, "share_back": 0.8, "ceiling_back": 1.0}
    rows = [
        {"behaviour": name, "verdict": verdict, "robust": robust, "nodes": nodes} | shares
        for name, verdict, robust, nodes in (
            ("no circuit", "not", None, float("nan")),
            ("large", "reproduced", False, 300),
            ("small", "reproduced", False, 40),
            ("robust", "reproduced", True, 200),
            ("half", "partial", None, 10),
        )
    ]
    monkeypatch.setattr(Source, "rows", lambda self, name: rows if name == "verdicts" else [])
    assert behaviour_order(Source(tmp_path)) == ["robust", "small", "large", "half", "no circuit"]


def test_the_page_needs_no_network(page):
    urls = set(re.findall(r"(?:src|href)=[\"'](https?:[^\"']+)", page))
    assert not urls and "@import" not in page and "fetch(" not in page
    assert len(page.encode()) < 3_000_000


def test_no_text_of_a_run_becomes_markup(page, nasty):
    assert nasty not in page
    scripts = re.findall(r"<script", page)
    assert len(scripts) == len(re.findall(r"</script>", page))


def test_embedded_data_can_be_read(page):
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    assert found, "the page holds its data as JSON"
    data = json.loads(found[1])
    assert {"charts", "graphs", "names"} <= data.keys() and data["graphs"]


def test_the_same_tables_give_the_same_page(full, page):
    assert report_html(full) == page


def test_a_run_that_came_as_far_as_the_evaluation_has_a_page(make_old, tmp_path):
    written = write_report(make_old(tmp_path / "old"))
    assert "Training" in _text(written.read_text(encoding="utf-8"))


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    with pytest.raises(BridgesError, match="is no run folder"):
        report_html(tmp_path)
    assert main([str(tmp_path)]) == 1 and "is no run folder" in capsys.readouterr().err


def test_twenty_behaviours_of_three_hundred_nodes_weigh_less_than_three_megabytes(tmp_path, monkeypatch):
    verdicts = ("reproduced", "partial", "undecided", "not")
    cases = {f"behaviour_{i}": Case(verdicts[i % 4], "some reason", moved=0.5, back=0.4, fvu=0.15) for i in range(20)}
    for module in (frames, circuit_frames):
        monkeypatch.setattr(module, "CASES", cases)
    # As much text as real runs have, and no stretch of it twice.
    monkeypatch.setattr(circuit_frames, "WINDOW", 17)
    monkeypatch.setattr(circuit_frames, "PROMPT_TOKENS", 40)
    text = report_html(full_run(tmp_path / "heavy", size=10))
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    circuits = [circuit for one in data["graphs"] for circuit in one["circuits"] if circuit["model"] == "sparse"]
    assert len(circuits) == 20 and all(len(circuit["nodes"]) >= 300 for circuit in circuits)
    assert len(text.encode()) < 3_000_000
