"""The page in a headless Chromium: no errors, and a graph that answers to mouse, keyboard and finger."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridges.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
selenium = pytest.importorskip("selenium", reason="the page is tried in a browser only where selenium is installed")
if not CHROMIUM or not DRIVER:
    pytest.skip("the page is tried in a browser only where chromium and chromedriver are", allow_module_level=True)

from selenium.webdriver import ActionChains, Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

WIDTHS = (320, 420, 768, 1400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    os.environ["SE_OFFLINE"] = "true"
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser: Chrome):
    def open_(folder: Path, width: int = 1400) -> Chrome:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(write_report(folder).as_uri())
        # On a busy machine the driver comes back earlier now and then.
        WebDriverWait(browser, 30).until(lambda b: b.execute_script("return document.readyState") == "complete")
        return browser

    return open_


def nodes(driver: Chrome) -> list[Any]:
    return driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] .graph .node")


def heading(driver: Chrome) -> str:
    return driver.find_element(By.CSS_SELECTOR, ".behaviour[open] .inspector h5").text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["full", "old"])
def test_no_errors_and_nothing_sticks_out(open_page, tmp_path, make_full, make_old, kind, width):
    driver = open_page((make_full if kind == "full" else make_old)(tmp_path / kind), width)
    for button in driver.find_elements(By.CSS_SELECTOR, "[data-fold=open]"):
        button.click()
    drawn = "return [...document.querySelectorAll('[data-charts]')].every(h => h.querySelector('.panel > svg'))"
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert driver.execute_script(drawn)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    bar = "const nav = document.querySelector('nav ul'); return nav.scrollWidth <= nav.clientWidth"
    assert driver.execute_script(bar), "the navigation scrolls"
    small = "return [...document.querySelectorAll('.panel > svg')].every(s => s.getBoundingClientRect().width >= 220)"
    assert driver.execute_script(small)


def test_graph_answers_to_the_mouse(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run"))
    neuron = next(n for n in nodes(driver) if "layer 1, mlp neuron" in n.get_attribute("aria-label"))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", neuron)
    ActionChains(driver).move_to_element(neuron).perform()
    name = neuron.get_attribute("aria-label").split(", importance")[0]
    assert heading(driver) == name and neuron.get_attribute("aria-pressed") == "false"
    panel = driver.find_element(By.CSS_SELECTOR, ".inspector")
    assert "Most active on" in panel.text and "Importance" in panel.text
    tokens = [t.text for t in panel.find_elements(By.CSS_SELECTOR, ".snippet:first-of-type .token")]
    assert "</script>" in tokens and len(panel.find_elements(By.CSS_SELECTOR, "mark.token")) == 3
    neuron.click()
    assert neuron.get_attribute("aria-pressed") == "true"
    lit = driver.find_elements(By.CSS_SELECTOR, ".graph .edge.on")
    every = driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] .graph .edge")
    assert 0 < len(lit) < len(every)
    # An edge is followed to its other end.
    reads = panel.find_element(By.CSS_SELECTOR, ".follow")
    target = reads.find_element(By.CSS_SELECTOR, "span").text
    reads.click()
    assert heading(driver) == target and driver.switch_to.active_element.get_attribute("aria-label").startswith(target)


def test_a_finger_holds_a_node_and_sees_it(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run", size=30), 420)
    canvas = driver.find_element(By.CSS_SELECTOR, ".behaviour[open] .canvas")
    driver.execute_script("scrollBy(0, arguments[0].getBoundingClientRect().bottom - innerHeight)", canvas)
    neuron = next(n for n in nodes(driver) if "layer 1, mlp out" in n.get_attribute("aria-label"))
    driver.execute_script("arguments[1].scrollLeft += arguments[0].getBoundingClientRect().x - 200", neuron, canvas)
    middle = "const r = arguments[0].getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2}"
    at = driver.execute_script(middle, neuron)
    assert 700 < at["y"] < 900, "the panel would lie over it"
    for kind, points in (("touchStart", [at]), ("touchEnd", [])):
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    driver.execute_async_script("setTimeout(arguments[0], 300)")
    assert neuron.get_attribute("aria-pressed") == "true"
    panel = driver.find_element(By.CSS_SELECTOR, ".behaviour[open] .inspector")
    top = driver.execute_script("return arguments[0].getBoundingClientRect().top", panel)
    assert driver.execute_script(middle, neuron)["y"] < top < 900


def test_highlight_goes_up_or_down(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run"))
    neuron = next(n for n in nodes(driver) if "layer 1, mlp neuron" in n.get_attribute("aria-label"))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", neuron)
    neuron.click()
    select = Select(driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] select")[-1])
    lit = {}
    for way in ("both", "upstream", "downstream"):
        select.select_by_value(way)
        found = driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] .node.on")
        lit[way] = {n.get_attribute("aria-label") for n in found}
    assert lit["upstream"] | lit["downstream"] == lit["both"]
    assert lit["upstream"] & lit["downstream"] == {neuron.get_attribute("aria-label")}
    assert any("layer 1, mlp in" in n for n in lit["upstream"])
    assert any("layer 1, mlp out" in n for n in lit["downstream"])


def test_graph_answers_to_the_keyboard(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run"))
    stops = driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] .node[tabindex='0']")
    assert len(stops) == 1, "the graph is one stop of the Tab key"
    driver.execute_script("arguments[0].focus()", stops[0])
    first = heading(driver)
    seen = {first}
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_DOWN):
        driver.switch_to.active_element.send_keys(key)
        seen.add(heading(driver))
    assert len(seen) > 2
    here = driver.switch_to.active_element
    here.send_keys(Keys.ENTER)
    assert here.get_attribute("aria-pressed") == "true"
    kept = heading(driver)
    here.send_keys(Keys.ESCAPE)
    assert here.get_attribute("aria-pressed") == "false" and heading(driver) != kept


def test_slider_draws_the_strongest_edges(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run", size=30))
    shown = "return document.querySelectorAll('.behaviour[open] .graph svg[role=group] .edge:not(.off)').length"
    slider = driver.find_element(By.CSS_SELECTOR, ".behaviour[open] input[type=range]")
    every = len(driver.find_elements(By.CSS_SELECTOR, ".behaviour[open] .graph svg[role=group] .edge"))
    assert every > 150 and driver.execute_script(shown) == 150
    slider.send_keys(Keys.HOME)
    assert driver.execute_script(shown) == 1
    slider.send_keys(Keys.END)
    assert driver.execute_script(shown) == every
    Select(driver.find_element(By.CSS_SELECTOR, ".behaviour[open] select")).select_by_index(1)
    assert "dense model" in driver.find_element(By.CSS_SELECTOR, ".inspector h5").text


def test_links_open_their_behaviour_and_tables_unfold(open_page, tmp_path, make_full, nasty):
    driver = open_page(make_full(tmp_path / "run"))
    link = next(a for a in driver.find_elements(By.CSS_SELECTOR, ".verdict a") if a.text == nasty)
    target = driver.find_element(By.CSS_SELECTOR, link.get_attribute("href")[link.get_attribute("href").index("#") :])
    assert target.get_attribute("open") is None and not target.find_elements(By.CSS_SELECTOR, "svg")
    driver.execute_script("arguments[0].click()", link)
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert target.get_attribute("open") is not None and target.find_elements(By.CSS_SELECTOR, ".graph .node")
    fold = target.find_element(By.XPATH, ".//summary[text()='Nodes and edges as tables']")
    driver.execute_script("arguments[0].click()", fold)
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert len(target.find_elements(By.CSS_SELECTOR, ".graph + details table")) == 4


def test_printing_opens_everything(open_page, tmp_path, make_full):
    driver = open_page(make_full(tmp_path / "run"))
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    folded = "return document.querySelectorAll('details.behaviour:not([open])').length"
    assert driver.execute_script(folded) == 0
    assert driver.execute_script("return [...document.querySelectorAll('.graph')].every(g => g.querySelector('.node'))")
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script(folded) == 5
