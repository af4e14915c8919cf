"""Pages that are made from the code are in step with it, links lead somewhere, and the documentation builds."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

import bridges
from bridges.compare.claims import ADVERSARY, AGREEMENT, BIGRAM, REST
from bridges.config import Config, flat
from bridges.config.measuring import CONTROLS
from bridges.storage.tables import TABLES
from bridges.storage.tables.verdicts import VERDICTS

from .conftest import ROOT


@pytest.mark.parametrize("name", ["settings.md", "tables.md"])
def test_a_generated_page_is_what_the_generator_writes(name, generator, page):
    assert page(f"docs/{name}") == generator.PAGES[name](), "Run `python docs/generate.py`."


def test_every_setting_is_on_its_page(page):
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| `(.*?)` \| (.*) \|$", page("docs/settings.md"), re.M)
    assert [name for name, *_ in rows] == list(flat(Config()))
    assert all(len(text) > 5 for *_, text in rows)


def test_every_column_is_on_its_page(page):
    sections = re.split(r"^## `(\w+)`$", page("docs/tables.md"), flags=re.M)[1:]
    named = {
        name: re.findall(r"^\| `(\w+)` \|", text, re.M)
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert named == {name: table.names for name, table in TABLES.items()}


def test_the_verdict_s_page_has_every_criterion_and_bar(page):
    text, bars = page("docs/verdict.md"), Config().verdict
    table_rows = [row for row in text.splitlines() if row.startswith("|")]
    rows = {name: row.split("|")[-2] for row in table_rows for name in re.findall(r"`(\w+)`", row)}
    said = {"dense_accuracy": bars.dense_accuracy, "bigram": BIGRAM, "sparse_accuracy": bars.sparse_accuracy}
    said |= {"fvu": bars.fvu, "circuit_accuracy": bars.circuit_accuracy, "faithfulness": 1 - bars.faithfulness}
    said |= {"overshoot": 1 + bars.faithfulness, "accuracy_without": bars.necessity, "random_sets": bars.quantile}
    said |= {"ceiling": bars.ceiling, "share_to_dense": bars.share_of_ceiling, "share_to_sparse": bars.share_of_ceiling}
    said |= {"nulls_to_dense": bars.alpha, "nulls_to_sparse": bars.alpha}
    said |= {"circuit_found": Config().circuits.target, "interchange": AGREEMENT, "adversarial": ADVERSARY}
    said |= {"seeds": REST, "reach": bars.fvu, "resample": bars.circuit_accuracy, "random_text": bars.circuit_accuracy}
    said["stochastic"] = bars.circuit_accuracy
    for name, bar in said.items():
        assert f"{bar:g}" in rows[name], f"docs/verdict.md, {name}: {bar:g}"
    assert {"shared_last", "dense_edges", "consistent_edges"} <= set(rows)
    assert all(f"`{verdict}`" in text for verdict in VERDICTS)


def test_every_control_has_its_name_elsewhere(page):
    text = page("docs/comparison.md") + page("docs/verdict.md")
    names = {"necessity": "accuracy_without", "consistent_labels": "consistent_edges"}
    assert all(f"`{names.get(name, name)}`" in text for name in CONTROLS)


def test_the_python_page_has_every_public_name(page):
    text = page("docs/python.md")
    for name in set(bridges.__all__) - {"__version__"}:
        shown = [path for path in re.findall(r"^::: (\S+)$", text, re.M) if path.endswith(f".{name}")]
        assert len(shown) == 1, name
        module, _, attribute = shown[0].rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(bridges, name)


def test_what_there_is_can_be_listed():
    assert set(bridges.__all__) <= set(dir(bridges)) and set(bridges._LAZY) | {"__version__"} == set(bridges.__all__)
    assert "bridges.load(" in bridges.__doc__ and (ROOT / "bridges" / "py.typed").is_file()


def test_links_between_pages_lead_somewhere(page):
    files = ["README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
    links = [(name, link) for name in files for link in re.findall(r"\]\(([^)\s]+)\)", page(name))]
    local = [(name, link.partition("#")[0]) for name, link in links if not re.match(r"https?:|#", link)]
    assert len(local) > 15
    for name, link in local:
        assert ((ROOT / name).parent / link).exists(), f"{name} links to {link}"


def test_the_documentation_builds_without_a_warning(tmp_path):
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -c constraints.txt -e '.[docs]'")
    build = ["mkdocs", "build", "--strict", "-f", str(ROOT / "docs" / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    nowhere = "http://127.0.0.1:9"  # no network
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": nowhere, "https_proxy": nowhere}
    done = subprocess.run([sys.executable, "-m", *build], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    made = (tmp_path / "site" / "settings" / "index.html").read_text()
    python = re.sub(r"<[^>]+>", "", (tmp_path / "site" / "python" / "index.html").read_text())
    # Formatters differ in whether a signature begins with `def`.
    assert "train.pair_rate" in made and re.search(r"\bsteer\(\s*behaviour: str", python)
    # Nothing is fetched from elsewhere when a page is read.
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', made)
