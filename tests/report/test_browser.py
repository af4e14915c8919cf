"""The page in a headless Chromium: every interaction by mouse, finger and keyboard, without an error or a request."""

from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridges.report import write_report

from .browser import CHROMIUM, Browser
from .conftest import full_run, old_run
from .frames import CASES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page is tried in a browser only where Chromium is")

# The key below the drawing has a node too, without a name.
DRAWN = "return $$('.hero .graph .node:not(.end)[aria-label]').length"
PRESSED = "return $$('.hero .node[aria-pressed=true]').map((n) => n.getAttribute('aria-label'))"
NEURON = "$$('.hero .node').find((n) => n.getAttribute('aria-label').includes('neuron 242'))"
SCALE = "return Number($('.hero .canvas > svg > g').getAttribute('transform').match(/scale\\((.+)\\)/)[1])"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run with small circuits, with large ones, and of one without any."""
    root = tmp_path_factory.mktemp("pages")
    runs = {"small": full_run(root / "small"), "large": full_run(root / "large", size=6), "old": old_run(root / "old")}
    return {name: write_report(run) for name, run in runs.items()}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    found.send("Network.enable")
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser, pages: dict[str, Path]) -> Iterator[Browser]:
    """The page of the small run, on which nothing was named yet."""
    browser.open(pages["small"])
    browser.js("localStorage.clear()")
    browser.open(pages["small"])
    yield browser
    assert browser.complaints() == []


def slide(browser: Browser, step: str) -> None:
    browser.js(f"const r = $('.hero input[type=range]'); r.value = {step}; r.dispatchEvent(new Event('input'))")
    browser.settle()


def type_(browser: Browser, element: str, text: str) -> None:
    browser.js(f"{element}.focus(); {element}.select()")
    browser.send("Input.insertText", text=text)
    browser.settle()


@pytest.mark.parametrize("width", [390, 768, 1400])
@pytest.mark.parametrize("kind", ["small", "old"])
def test_no_errors_no_requests_and_nothing_sticks_out(browser, pages, kind, width):
    browser.open(pages[kind], width, dark=width == 768)
    browser.js("$('[data-fold=open]')?.click()")
    browser.settle()
    seen = "h.clientWidth && !h.closest('details:not([open])')"
    assert browser.soon(f"return $$('[data-charts]').every((h) => !({seen}) || $('.panel > svg', h))")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.soon("return $$('.panel > svg').every((s) => s.getBoundingClientRect().width >= 220)")
    assert browser.complaints() == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} <= {pages[kind].as_uri()}


@pytest.mark.parametrize("width", [390, 1400])
def test_the_answer_and_the_core_are_above_the_fold(browser, pages, width):
    browser.open(pages["small"], width)
    there = "['h1', '.hero .node[aria-label]'].map((s) => $(s).getBoundingClientRect().bottom)"
    heading, first = browser.js(f"return {there}")
    # On a phone the drawing begins a thumb's length further down.
    assert heading < 300 and first < (900 if width == 1400 else 1000)
    if width == 1400:
        assert browser.js("return Math.max(...$$('.hero .node').map((n) => n.getBoundingClientRect().bottom))") < 900
    assert browser.soon("return $$('.hero .node-name').every((t) => t.getBoundingClientRect().height > 7)")


def test_cards_do_not_overlap(browser, pages):
    browser.open(pages["large"])
    boxes = browser.js("return $$('.hero .node .shape').map((s) => s.getBoundingClientRect()).map((r) => r.toJSON())")
    assert len(boxes) > 12
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = (
                a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
            )
            assert apart, (a, b)


def test_the_slider_goes_from_ten_nodes_to_all_with_the_share_of_the_effect_at_each(browser, pages):
    browser.open(pages["large"])
    assert browser.js(DRAWN) == 12
    last = int(browser.js("return $('.hero input[type=range]').max"))
    graph = json.loads(browser.js("return $('#data').textContent"))["graphs"][0]["circuits"][0]
    shares = {k: (recovered, lost) for k, recovered, lost in graph["core"]}
    slide(browser, "0")
    assert browser.js(DRAWN) == 10
    for step in range(last + 1):
        slide(browser, str(step))
        k = browser.js(DRAWN)
        alone, without = (f"{100 * share:.0f} %" for share in shares[k])
        said = browser.js("return $('.hero .core').textContent")
        assert f"alone recover {alone} of the effect; without them {without} is lost" in said
    assert k == len(graph["nodes"]) and browser.js("return $$('.hero .core-node').length") == k
    # The arrow keys of the keyboard move it as well.
    browser.js("$('.hero input[type=range]').focus()")
    browser.key("ArrowLeft")
    browser.settle()
    assert browser.js(DRAWN) < k


def test_a_node_s_panel_says_what_it_does(page):
    page.click(NEURON)
    assert page.js("return $('.hero .inspector h5').textContent") == "layer 1, neuron 242"
    rows = "$$('.hero .inspector dl > div').map((d) => [...d.children].map((c) => c.textContent))"
    facts = page.js(f"return Object.fromEntries({rows})")
    assert facts["Attribution"] == "+4" and facts["Exact effect"] == "+3.6" and facts["Protected"] == "no"
    assert facts["Rank"] == "1 of 17"
    prompts = page.js("return $$('.hero .pair-shades .snippet').map((s) => $$('.token', s).map((t) => t.textContent))")
    assert prompts == [["x", " = [", "[", "1,", " 2"], ["x", " = [", " </b>", "1,", " 2"]]
    seen = "$$('.hero .pair-shades .snippet').map((s) => s.children[2])"
    third = page.js(f"return {seen}.map((t) => [t.className, t.style.getPropertyValue('--a')])")
    assert third == [["token above differs", "1.00"], ["token below differs", "0.48"]]
    assert "Most active on" in page.js("return $('.hero .inspector').textContent")
    lit = page.js("return [$$('.hero .link.on').length, $$('.hero .link').length]")
    assert 0 < lit[0] < lit[1]
    # Mouse over another node changes nothing while one is selected; the close button releases it.
    page.click("$('.hero .inspector .close')")
    assert page.js(PRESSED) == [] and page.js("return $$('.hero .core-node').length") == 12


def test_what_a_node_writes_to_the_two_answers(page):
    page.click("$$('.hero .node').find((n) => n.getAttribute('aria-label').includes('mlp out 3'))")
    text = page.js("return $('.hero .inspector').textContent")
    assert "Writes to the behaviour’s answers (2)" in text and "yes: an adversary" not in text
    page.click("$$('.hero .node').find((n) => n.getAttribute('aria-label').includes('mlp out 9'))")
    assert "yes: an adversary needs it kept" in page.js("return $('.hero .inspector').textContent")


def test_search_finds_a_node_that_is_not_shown(page):
    named = "$$('.hero .node[aria-label]')"
    assert not page.js(f"return {named}.some((n) => n.getAttribute('aria-label').includes('neuron 11,'))")
    type_(page, "$('.hero .finder input')", "2.mlp_neuron:11")
    assert page.js("return $$('.hero .hits button').length") == 1
    page.key("Enter")
    page.settle()
    assert [name.split(",")[1] for name in page.js(PRESSED)] == [" neuron 11"]
    assert page.js("return document.activeElement.classList.contains('node')")
    type_(page, "$('.hero .finder input')", "no such node")
    assert "No node" in page.js("return $('.hero .hits').textContent")


def test_the_keyboard_reaches_every_node_and_lets_go(page):
    assert page.js("return $$('.hero .node[tabindex=\"0\"]').length") == 1, "the drawing is one stop of the Tab key"
    page.js("$('.hero [aria-label=\"Find a node by kind, number, name or token\"]').focus()")
    for _ in range(12):
        page.key("Tab")
        if page.js("return document.activeElement.classList.contains('node')"):
            break
    assert page.js("return document.activeElement.classList.contains('node')")
    outline = "const s = getComputedStyle($('.shape', document.activeElement)); return [s.strokeWidth, s.stroke]"
    assert page.js(outline) == ["3px", page.js("return getComputedStyle($('.hero .slide input')).accentColor")]
    seen = set()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.key(key)
        seen.add(page.js("return document.activeElement.getAttribute('aria-label')"))
    assert len(seen) >= 4
    page.key("Enter")
    chosen = page.js(PRESSED)
    assert chosen == [page.js("return document.activeElement.getAttribute('aria-label')")]
    # Escape works in the panel as well and gives the focus back.
    page.js("$('.hero .inspector input').focus()")
    page.key("Escape")
    assert page.js(PRESSED) == [] and page.js("return document.activeElement.getAttribute('aria-label')") == chosen[0]


def test_focus_can_be_seen_on_buttons_and_rows(page):
    for element in ("$('.tally button')", "$('details.behaviour summary')", "$('.hero .menu summary')"):
        page.js(f"{element}.focus()")
        page.key("Tab")
        style = (
            "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
        )
        kind, width = page.js(style)
        assert kind != "none" and width >= 2


def test_zoom_and_pan_by_mouse(page):
    assert page.js(SCALE) == 1
    page.click("$('.hero [aria-label=\"Zoom in\"]')")
    assert page.js(SCALE) == 1.5
    x, y = page.middle("$('.hero .canvas')")
    page.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-120, modifiers=2)
    page.settle()
    assert page.js(SCALE) > 1.5
    before = page.js("return $('.hero .canvas > svg > g').getAttribute('transform')")
    page.send("Input.dispatchMouseEvent", type="mousePressed", x=x + 40, y=y + 5, button="left", clickCount=1)
    for step in (10, 30, 60):
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + 40 + step, y=y + 5, button="left", buttons=1)
    page.send("Input.dispatchMouseEvent", type="mouseReleased", x=x + 100, y=y + 5, button="left", clickCount=1)
    page.settle()
    assert page.js("return $('.hero .canvas > svg > g').getAttribute('transform')") != before
    page.click("$('.hero [aria-label=\"Fit the drawing to its box\"]')")
    assert page.js(SCALE) == 1


def test_a_finger_holds_a_node_and_two_zoom(browser, pages):
    browser.open(pages["small"], 390)
    browser.tap(NEURON)
    assert [name.split(",")[1] for name in browser.js(PRESSED)] == [" neuron 242"]
    x, y = browser.middle("$('.hero .canvas')")
    fingers = lambda gap: [{"x": x - gap, "y": y, "id": 1}, {"x": x + gap, "y": y, "id": 2}]  # noqa: E731
    browser.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=fingers(20))
    for gap in (30, 45, 60):
        browser.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=fingers(gap))
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.settle()
    assert browser.js(SCALE) > 1.2
    assert browser.complaints() == []


def test_names_and_groups_are_kept_saved_and_read_back(page, pages):
    page.click(NEURON)
    for label, text in (("Name", "finds the bracket"), ("Group", "brackets")):
        field = f"$$('.hero .naming label').find((l) => l.textContent.includes('{label}')).querySelector('input')"
        type_(page, field, text)
        page.js(f"{field}.dispatchEvent(new Event('change'))")
        page.settle()
    assert page.js("return $('.hero .node.chosen .node-name').textContent") == "finds the bracket"
    assert page.js("return $$('.hero .tag').length") == 1
    # Loaded again, the browser still knows them.
    page.open(pages["small"])
    assert page.js("return $$('.hero .node-name').some((t) => t.textContent === 'finds the bracket')")
    page.js("$$('.hero button').find((b) => b.textContent === 'Save names.json').click()")
    saved = json.loads(page.downloaded("names.json"))
    assert saved == {"names": {"1.mlp_neuron:242": "finds the bracket"}, "groups": {"brackets": ["1.mlp_neuron:242"]}}
    # The page itself with the names inside is a whole page again.
    page.js("$$('.hero button').find((b) => b.textContent === 'Save this page with them').click()")
    copy = pages["small"].with_name("copy.html")
    copy.write_bytes(page.downloaded("report.html"))
    page.js("localStorage.clear()")
    page.open(copy)
    assert page.js("return $$('.hero .node-name').some((t) => t.textContent === 'finds the bracket')")
    assert page.complaints() == []


def test_names_of_a_file_are_read_and_forgotten(page, tmp_path):
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"names": {"1.mlp_neuron:242": "from a file"}, "groups": {}}))
    page.send("DOM.enable")
    root = page.send("DOM.getDocument", depth=0)["root"]["nodeId"]
    found = page.send("DOM.querySelector", nodeId=root, selector=".hero input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=found, files=[str(file)])
    page.js("await new Promise((done) => setTimeout(done, 300))")
    named = "return $$('.hero .node-name').some((t) => t.textContent === 'from a file')"
    assert page.js(named)
    page.js("$$('.hero button').find((b) => b.textContent === 'Forget what was given here').click()")
    page.settle()
    assert not page.js(named)


def test_the_drawing_is_saved_as_svg_and_png(page):
    page.js("$$('.hero .menu button').find((b) => b.textContent === 'SVG').click()")
    drawing = ElementTree.fromstring(page.downloaded("bracket_counting-sparse.svg"))
    text = " ".join(drawing.itertext())
    assert drawing.tag.endswith("svg") and "neuron 242" in text and "12 of 17 nodes" in text
    # By itself: colours stand in the elements, not in a style sheet.
    shapes = [e for e in drawing.iter() if e.tag.endswith("rect")]
    assert all(e.get("fill") for e in shapes) and not any(e.get("class") for e in drawing.iter())
    page.js("$$('.hero .menu button').find((b) => b.textContent === 'PNG').click()")
    content = page.downloaded("bracket_counting-sparse.png")
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width > 600 and height > 600


def test_rows_are_found_filtered_and_sorted(page):
    shown = "return $$('details.behaviour').filter((d) => !d.hidden).map((d) => d.dataset.kind)"
    assert len(page.js(shown)) == len(CASES)
    page.click("$$('.tally-item').find((b) => b.textContent.includes('partial'))")
    assert page.js(shown) == ["partial"]
    page.click("$$('.tally-item').find((b) => b.textContent.includes('partial'))")
    type_(page, "$('[data-find]')", "straddles")
    assert page.js(shown) == ["undecided"] and "1 of 8" in page.js("return $('.found').textContent")
    page.js("const f = $('[data-find]'); f.value = ''; f.dispatchEvent(new Event('input'))")
    moved = "return $$('details.behaviour').map((d) => d.dataset.share).filter(Boolean).map(Number)"
    page.click("$('[data-sort=share]')")
    down = page.js(moved)
    assert down == sorted(down, reverse=True)
    page.click("$('[data-sort=share]')")
    up = page.js(moved)
    assert up == sorted(up) != down


def test_a_row_has_its_pair_its_curve_and_opens_its_circuit(page):
    row = "$$('details.behaviour').find((d) => d.dataset.behaviour === 'with_as')"
    parts = page.js(f"return [$$('.fork', {row}).length, $$('.spark path', {row}).length, {row}.open]")
    assert parts[0] >= 2 and parts[1] >= 4 and parts[2] is False
    page.click(f"{row}.querySelector('summary')")
    page.js("await new Promise((done) => setTimeout(done, 200))")
    assert page.js(f"return $$('.graph .node', {row}).length") > 10
    legend = page.js(f"return $$('.judgement .legend li', {row}).map((l) => l.textContent)")
    assert {"ceiling: the dense model’s own exchange", "whole sparse model", "circuit alone"} <= set(legend)
    # A link to a behaviour opens it.
    page.js("location.hash = $('.hero h2 a').hash")
    page.js("await new Promise((done) => setTimeout(done, 200))")
    assert page.js("return document.getElementById(location.hash.slice(1)).open")


def test_the_dense_model_s_circuit_is_another_choice(page):
    page.js("const s = $('.hero select'); s.value = 'dense'; s.dispatchEvent(new Event('change'))")
    page.settle()
    assert page.js("return $('.hero .canvas svg').getAttribute('aria-label')").startswith(
        "bracket_counting, dense model"
    )


def test_printing_opens_everything_and_leaves_out_what_needs_a_mouse(page):
    page.send("Emulation.setEmulatedMedia", media="print")
    page.js("dispatchEvent(new Event('beforeprint'))")
    page.settle()
    assert page.js("return $$('details.behaviour:not([open])').length") == 0
    assert page.js("return $$('.graph').every((g) => $('.node', g))")
    hidden = (
        "return $$('nav, .list-tools, .graph-tools, .inspector').every((e) => getComputedStyle(e).display === 'none')"
    )
    assert page.js(hidden)
    page.js("dispatchEvent(new Event('afterprint'))")
    page.send("Emulation.setEmulatedMedia", media="")
    assert page.js("return $$('details.behaviour[open]').length") == 0
