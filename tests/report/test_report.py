"""The page: what it says, that nothing of a run can break it, and that equal tables give equal bytes."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import yaml
from bridges.report.criteria import CONTROL, CRITERIA, why

from bridges.cli.report import main
from bridges.compare.verdict import decide
from bridges.config import CONTROLS, VerdictConfig
from bridges.errors import BridgesError, CheckpointError
from bridges.report import write_report
from bridges.report.circuits import EDGES, ENDS, NODES
from bridges.report.page import report_html
from bridges.report.source import STAGES
from bridges.report.text import visible
from bridges.storage.tables import TABLES, read_table, table_path, write_table


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, and the text of each kind of element."""

    VOID = ("meta", "link", "br")

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.inside: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    @property
    def data(self) -> dict:
        index = next(
            i for i, (t, a) in enumerate(e for e in self.elements if e[0] == "script") if a.get("id") == "data"
        )
        return json.loads(self.texts["script"][index])


@pytest.fixture(scope="module")
def page(full) -> str:
    return report_html(full)


@pytest.fixture(scope="module")
def parsed(page) -> Page:
    return Page(page)


def test_everything_is_closed_and_nothing_is_fetched(page, parsed):
    assert parsed.open == []
    for tag, attributes in parsed.elements:
        assert "src" not in attributes and tag not in ("img", "iframe", "object", "base")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
        assert not any(name.startswith("on") for name in attributes)
    style = parsed.texts["style"][0]
    assert "url(" not in style and "@import" not in style and "@font-face" not in style
    script = "".join(parsed.texts["script"])
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(|document\.write", script)
    assert "default-src 'none'" in page


def test_text_of_a_run_never_becomes_markup(page, parsed, nasty):
    assert [t for t, _ in parsed.elements].count("script") == 2
    assert nasty not in page
    assert nasty in "".join(parsed.texts["h3"])
    assert "because of <not expressible>" in "".join(parsed.texts["p"])
    assert 'quote "and"⇥tab⏎line' in "".join(parsed.texts["a"])
    # The counterfactual prompt: tab, vertical tab, a tag; its answer turns the direction of text around.
    code = "".join(parsed.texts["code"])
    assert "⇥x = [1,⟨U+000B⟩ </b>2" in code and "⟨U+202E⟩]" in code
    assert not set(page) & {chr(c) for c in (*range(9), *range(11, 32), 127, 0x202E)}
    tokens = {t for g in parsed.data["graphs"] for c in g["circuits"] for e in c["examples"].values() for t in e[0][2]}
    assert {"</script>", "⇥", "⏎", '"'} <= {parsed.data["texts"][t] for t in tokens}


def test_verdicts_come_first_with_their_numbers(parsed):
    sections = [a["id"] for t, a in parsed.elements if t == "section"]
    assert sections == ["verdicts", "fidelity", "behaviours", "training", "settings"]
    assert parsed.texts["h1"] == ["tinypython: 2 of 4\u00a0behaviours reproduced by a sparse circuit"]
    text = "".join(parsed.texts["p"]).replace("\u00a0", " ").replace("\u202f", " ")
    assert (
        "A circuit of 34 nodes and 61 edges (the dense model’s own circuit: 940) decides 96.4 % of held-out prompts "
        "rightly, the sparse model 97.2 % [95.2, 99.2 %], the dense model 98.1 % [96.1, 100.1 %]; circuit and dense "
        "model decide 95.0 % of prompts alike; carried through the bridges it moves 81.2 % [75.2, 88.2 %] of the dense "
        "logit difference, the best null 5.0 %."
    ) in text
    assert "All 2 criteria are met." in text
    assert "Ruled out by: nonsense control 34 (asked ≤ 20). Not met: share moved 0.040 (asked ≥ 0.250)." in text
    assert "The dense model itself decides only 53.0 % [51.0, 55.0 %] of held-out prompts rightly." in text
    facts = "".join(parsed.texts["dd"]).replace("\u00a0", " ").replace("\u202f", " ")
    assert "125 808 of 6 291 456 (2.00 %)" in facts and "3 993 600 tokens" in facts and "64 held-out sequences" in facts
    order = [a["id"] for t, a in parsed.elements if t == "details" and "id" in a]
    assert order == [f"behaviour-{i}" for i in range(6)]


def test_links_ids_headings_and_tables(parsed):
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for t, a in parsed.elements if t == "a"} <= set(ids)
    assert [t for t, _ in parsed.elements].count("h1") == 1
    levels = [int(t[1]) for t, _ in parsed.elements if re.fullmatch(r"h[1-6]", t)]
    assert all(b <= a + 2 for a, b in pairwise(levels))
    tables = [t for t, _ in parsed.elements].count("table")
    assert tables == [t for t, _ in parsed.elements].count("caption") > 20
    assert all("scope" in a for t, a in parsed.elements if t == "th")
    assert {"header", "nav", "main", "footer"} <= {t for t, _ in parsed.elements}


def test_every_chart_offers_its_numbers_as_a_table(page, parsed):
    figures = re.findall(r'<figure class="chart">.*?</figure>', page, flags=re.S)
    assert len(figures) == len(parsed.data["charts"]) > 10
    assert all("<figcaption>" in f and "The numbers as a table" in f and "<table>" in f for f in figures)
    for panels in parsed.data["charts"]:
        for spec in panels:
            assert spec["y"] and spec["series"]
            looks = [(s["colour"], s["dash"], s["marker"]) for s in spec["series"]]
            assert len(looks) == len(set(looks)), "two series look alike"


def test_single_crossings_are_drawn_as_measured(full, parsed):
    sites = read_table(full, "sites")
    figure = next(p for p in parsed.data["charts"] if p[0]["title"] == "dense → sparse")
    assert [p["title"] for p in figure] == ["dense → sparse", "sparse → dense"]
    for spec, column in zip(figure, ("kl_d2s", "kl_s2d"), strict=True):
        assert [s["name"] for s in spec["series"]] == ["trained bridges", "ridge regression", "untrained"]
        for series, bridges in zip(spec["series"], ("trained", "ridge", "untrained"), strict=True):
            mine = sites[sites["bridges"] == bridges].sort_values("pair")
            expected = mine[["pair", column, f"{column}_low", f"{column}_high"]].to_numpy(float)
            np.testing.assert_allclose(series["points"], expected, rtol=1e-4)
        assert spec["rules"] == [{"name": "bigram table", "y": 1.31}, {"name": "sparse model alone", "y": 0.21}]


def test_graph_holds_the_circuit(full, parsed):
    graph = parsed.data["graphs"][0]
    assert [c["name"] for c in graph["circuits"]] == ["sparse model, learned", "dense model, learned"]
    circuit = graph["circuits"][0]
    edges, nodes = (read_table(full, t).query("behaviour == 'bracket_counting' and model == 'sparse'") for t in TWO)
    assert len(circuit["edges"]) == len(edges) and circuit["leftEdges"] == circuit["leftNodes"] == 0
    assert circuit["head"] == 16
    sizes = [abs(e[2]) for e in circuit["edges"]]
    assert sizes == sorted(sizes, reverse=True)
    written = {
        (*circuit["nodes"][a][:2], *circuit["nodes"][b][:2], circuit["matrices"][m]) for a, b, _, m in circuit["edges"]
    }
    swap = {"stream": "first stream"}, {"stream": "last stream"}
    assert written == {
        (swap[1].get(e.source, e.source), e.source_channel, swap[0].get(e.target, e.target), e.target_channel, e.matrix)
        for e in edges.itertuples()
    }
    said = {tuple(circuit["nodes"][int(i)][:2]): text for i, text in circuit["tokens"].items()}
    ends = edges[edges["token"].notna()]
    assert set(said.values()) == set(map(visible, ends["token"])) and len(said) == len(ends) == 4
    assert said["embedding", 17] == said["logits", 17] == visible("\tfor")
    named = {(p, c) for p, c, *_ in circuit["nodes"] if "." in p}
    assert named == set(nodes[["point", "channel"]].itertuples(index=False, name=None))


TWO = ("edges", "nodes")


def test_large_circuits_keep_what_is_strongest(tmp_path, make_full):
    folder = make_full(tmp_path / "run")
    key = {"behaviour": "bracket_counting", "model": "sparse", "method": "learned", "seed": 0}
    rng = np.random.default_rng(0)
    nodes = pd.DataFrame({"point": "1.mlp_neuron", "channel": np.arange(2000), "score": 1.0, "mean": 0.0})
    write_table(folder, "nodes", nodes.assign(importance=nodes["channel"] / 2000, **key))
    ends = {"matrix": "1.up", "source": "1.mlp_in", "source_channel": 3, "target": "1.mlp_neuron"}
    edges = pd.DataFrame({"target_channel": np.arange(2000), "weight": rng.normal(size=2000)})
    write_table(folder, "edges", edges.assign(**ends, **key))
    more = pd.DataFrame([{"point": "1.mlp_in", "channel": 3, "score": 1.0, "mean": 0.0, "importance": 9.0}])
    write_table(folder, "nodes", pd.concat([nodes.assign(importance=nodes["channel"] / 2000), more]).assign(**key))
    circuit = Page(report_html(folder)).data["graphs"][0]["circuits"][0]
    assert len(circuit["nodes"]) == NODES and circuit["leftNodes"] == 2001 - NODES
    assert circuit["nodes"][0][:2] == ["1.mlp_in", 3]
    assert min(c for p, c, *_ in circuit["nodes"] if p == "1.mlp_neuron") == 2001 - NODES
    assert len(circuit["edges"]) == NODES - 1 <= EDGES and circuit["leftEdges"] == 2000 - len(circuit["edges"])


def test_embeddings_leave_room_for_what_is_inside(tmp_path, make_full):
    folder = make_full(tmp_path / "run")
    key = {"behaviour": "bracket_counting", "model": "sparse", "method": "learned", "seed": 0}
    inside = read_table(folder, "edges").query("behaviour == 'bracket_counting' and model == 'sparse'")
    ends = {"matrix": "tokens", "source": "embedding", "target": "stream", "target_channel": 1}
    strong = pd.DataFrame({"source_channel": np.arange(5000), "weight": 100.0 + np.arange(5000)}).assign(**ends, **key)
    write_table(folder, "edges", pd.concat([inside, strong]))
    circuit = Page(report_html(folder)).data["graphs"][0]["circuits"][0]
    assert circuit["leftEdges"] == 0 and circuit["leftEnds"] == 5000 + 2 - ENDS
    assert min(e[2] for e in circuit["edges"][:ENDS]) == 100 + 5000 - ENDS


def test_what_was_not_found_is_said(tmp_path, make_full):
    folder = make_full(tmp_path / "run")
    for table in ("nodes", "edges", "controls", "transfer"):
        write_table(folder, table, read_table(folder, table).query("behaviour != 'with_as'"))
    circuits = read_table(folder, "circuits")
    write_table(folder, "circuits", circuits.assign(reached=circuits["behaviour"] != "with_as", train_loss=0.4))
    text = "".join(Page(report_html(folder)).texts["p"])
    assert "the search ended at a loss of 0.400 nats on the training pairs; asked for were 0.150." in text
    assert "“transfer” has" not in text and "“controls” has" not in text
    empty = read_table(folder, "circuits").assign(reached=True, nodes=0)
    write_table(folder, "circuits", empty)
    assert "The circuit is empty" in "".join(Page(report_html(folder)).texts["p"])


def _evidence(criterion, value, threshold, passed, veto=True, low=np.nan, p=np.nan):
    row = {"criterion": criterion, "value": value, "threshold": threshold, "passed": passed, "veto": veto}
    return row | {"value_low": low, "p_adjusted": p}


def test_why():
    missed = [_evidence("circuit_found", 0.4, 0.15, False), _evidence("share_moved", np.nan, 0.5, False)]
    assert why(missed).startswith("The search ended at a loss of 0.400 nats on the training pairs, above the 0.150")
    close = [
        _evidence("control_necessity", 0.9, 0.9, False),
        _evidence("dense_to_sparse", 0.85, 0.8, False, veto=False, low=0.79),
        _evidence("control_nonsense", np.nan, 4.0, False),
        _evidence("necessity", 0.1, 0.0, False, veto=False, p=0.2),
        _evidence("agreement", np.nan, 0.9, False, veto=False),
    ]
    assert why(close).replace("\u00a0", " ") == (
        "Ruled out by: necessity control 0.900 (asked > 0.900), nonsense control (own circuit not found again). Not "
        "met: dense to sparse 0.850 (asked ≥ 0.800, but its interval begins at 0.790), dense necessity 0.100 (asked > "
        "0.000, corrected p 0.200), agreement (not measured)."
    )


def test_every_criterion_has_words(full):
    tables = {name: read_table(full, name) for name in ("suite", "behaviours")}
    decided = set(decide(tables, VerdictConfig())[0]["criterion"])
    assert len(decided) > 5 and decided | {CONTROL + name for name in CONTROLS} <= set(CRITERIA)


def test_a_run_that_stopped_after_evaluation(tmp_path, make_old):
    page = report_html(make_old(tmp_path / "old"))
    parsed = Page(page)
    text = "".join(parsed.texts["p"])
    for table, stage in (("verdicts", "compare"), ("suite", "behaviours"), ("similarity", "compare")):
        assert f"The stage “{stage}”, which writes the table “{table}”, has not run." in text
    assert len(parsed.data["charts"]) == 3 and parsed.data["graphs"] == []


@pytest.mark.parametrize("name", [name for name in TABLES if name != "timing"])
def test_a_missing_or_empty_table_is_named(tmp_path, full, name):
    folder = shutil.copytree(full, tmp_path / "run")
    frame = read_table(folder, name)
    table_path(folder, name).unlink()
    page = Page(report_html(folder))
    text = "".join("".join(v) for k, v in page.texts.items() if k in ("p", "section", "main"))
    if name not in ("agreement", "activations", "edges", "faithfulness", "nodes"):
        assert f"which writes the table “{name}”, has written no such table" in text
    assert name in STAGES and page.open == []
    write_table(folder, name, frame.head(0))
    assert Page(report_html(folder)).open == []


def test_a_run_with_settings_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    page = Page(report_html(tmp_path))
    assert page.texts["h1"] == ["The dense model beside a weight-sparse model"] and page.open == []
    assert "The run has no environment.json." in "".join(page.texts["p"])


def test_equal_tables_give_equal_bytes(tmp_path, full, make_full):
    first = write_report(shutil.copytree(full, tmp_path / "a")).read_bytes()
    other = make_full(tmp_path / "elsewhere" / "resumed")
    status = json.loads((other / "status.json").read_text())
    status |= {"status": "finished", "started": "2027-01-01T00:00:00+00:00", "message": None}
    status["stages"] = {n: s | {"seconds": 98765.25} for n, s in status["stages"].items()} | {
        "report": {"status": "running"}
    }
    (other / "status.json").write_text(json.dumps(status))
    environment = json.loads((other / "environment.json").read_text()) | {"command": ["resume=here"]}
    (other / "environment.json").write_text(json.dumps(environment))
    timing = pd.DataFrame({"step": [1], "seconds": [1.5], "tokens_per_second": [9.0]})
    write_table(other, "timing", timing)
    written = write_report(other)
    assert written == other / "report.html" and written.read_bytes() == first
    assert write_report(other).read_bytes() == first
    assert str(tmp_path).encode() not in first and b"98765" not in first
    assert sorted(p.name for p in other.iterdir() if "report" in p.name) == ["report.html"]


def test_a_changed_number_changes_the_page(tmp_path, full, page):
    folder = shutil.copytree(full, tmp_path / "run")
    verdicts = read_table(folder, "verdicts")
    write_table(folder, "verdicts", verdicts.assign(agreement=verdicts["agreement"] - 0.123))
    assert "82.7\u00a0%" in report_html(folder) and "82.7\u00a0%" not in page


def test_an_ablation_other_than_the_verdicts_is_named(tmp_path, full, page):
    folder = shutil.copytree(full, tmp_path / "run")
    write_table(folder, "circuits", read_table(folder, "circuits").assign(ablation="mixed"))
    assert "replaced as in its search (mixed)" in report_html(folder) and "as in its search" not in page


def test_command_line(tmp_path, full, capsys):
    folder = shutil.copytree(full, tmp_path / "run")
    assert main([str(folder)]) == 0 and capsys.readouterr().out.strip() == str(folder / "report.html")
    assert main([str(tmp_path)]) == 1 and "is no run folder" in capsys.readouterr().err


def test_damaged_files_are_named(tmp_path, full):
    folder = shutil.copytree(full, tmp_path / "run")
    frame = read_table(folder, "activations")
    write_table(folder, "activations", frame.assign(tokens="[not JSON"))
    with pytest.raises(CheckpointError, match="'activations' is damaged: its column 'tokens'"):
        report_html(folder)
    table_path(folder, "activations").write_bytes(b"PAR1")
    with pytest.raises(BridgesError, match="damaged"):
        report_html(folder)
    shutil.copy(table_path(full, "activations"), table_path(folder, "activations"))
    (folder / "status.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"status\.json is damaged"):
        report_html(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump([1]))
    with pytest.raises(CheckpointError, match="holds no settings"):
        report_html(folder)
