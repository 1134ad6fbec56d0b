"""The page in a real browser: map, slider, block, failures, and that it stays up to date by itself."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from em_blocks.runtime.dashboard.app import STATIC
from em_blocks.runtime.monitoring.block_map import STATES
from recorded import EVIL, Recorded, served, stores

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser():
    """Chromium. Its absence is a failure: nothing else would notice a page that does not work."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"these tests need a browser at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-angle=swiftshader"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run at work: section 0 done but for one quarantined block, 1 with a running one, 2 empty."""
    home = tmp_path_factory.mktemp("page")
    with stores(home, "seg.edges") as (store,):
        made = Recorded(store)
        made.first_done(20)
        made.failed("0/2/3")
        made.worker("w0", blocks=["1/1/4"], heartbeat=made.ago(-3600))
        made.home = home
        yield made


@pytest.fixture(scope="module")
def url(made):
    with served(made.home) as dashboard:
        yield dashboard.url


@pytest.fixture
def page(browser, url):
    """The page, loaded; what it complains about fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(20_000)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(url)
    page.wait_for_selector("#map[data-cell]")
    yield page
    page.close()
    assert complaints == []


def cell(page, y, x):
    """A point in the cell of a block, off its middle where a mark may be, in pixels of the canvas."""
    w, h, left, top = map(float, page.get_attribute("#map", "data-cell").split())
    return {"x": left + (x + 0.5) * w, "y": top + (y + 0.15) * h}


def colour(page, y, x):
    at = cell(page, y, x)
    script = "at => [...map.getContext('2d').getImageData(at.x, at.y, 1, 1).data]"
    return page.evaluate(script, at)[:3]


def colour_of(state):
    hexadecimal = re.search(rf"--{state}: #(\w{{6}})", (STATIC / "style.css").read_text()).group(1)
    return [int(hexadecimal[n : n + 2], 16) for n in (0, 2, 4)]


def wait_for_colour(page, y, x, state):
    for _ in range(100):
        if page.get_attribute("#map", "data-cell") and colour(page, y, x) == colour_of(state):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{colour(page, y, x)} is not {state}")


def test_the_page_and_the_server_count_states_alike():
    said = re.search(r"STATES = (\[.*\])", (STATIC / "colours.js").read_text()).group(1)
    assert said == str(list(STATES)).replace("'", '"')


def test_steps_and_workers_are_listed(page):
    row = page.locator("#steps tbody tr").first
    assert "running" in row.inner_text() and "19 / 60" in row.inner_text()
    assert "not started yet" in page.locator("#steps tbody tr").nth(1).inner_text()
    assert "1/1/4" in page.locator("#workers tbody tr").first.inner_text()


def test_the_map_shows_a_failed_block_in_its_cell(page):
    wait_for_colour(page, 2, 3, "quarantined")
    assert [colour(page, y, x) for y, x in ((3, 2), (2, 2), (1, 3))] == [colour_of("done")] * 3
    assert "quarantined (1)" in page.locator("#legend").inner_text()


def test_the_slider_moves_the_section(page):
    page.locator("#z").fill("1")
    wait_for_colour(page, 1, 4, "running")
    assert colour(page, 2, 3) == colour_of("waiting")
    page.locator("#z").focus()
    page.keyboard.press("ArrowLeft")
    wait_for_colour(page, 2, 3, "quarantined")


def test_hovering_tells_about_a_block(page):
    page.locator("#map").hover(position=cell(page, 0, 1))
    text = page.locator("#tip").inner_text()
    for part in ("block 0/0/1: done", "400, 46, 469.2 nm", "2.00 s", "worker w0", "host node1"):
        assert part in text


def test_a_click_shows_traceback_and_replay_command(page):
    page.locator("#map").click(position=cell(page, 2, 3))
    page.wait_for_selector("#block .replay")
    assert page.locator("#block .replay").inner_text() == "em-blocks replay c.json 0/2/3 --step edges"
    assert "ValueError: <b>no</b>" in page.locator("#block .traceback").first.inner_text()
    assert page.locator("#block .command button").inner_text() == "copy"


def test_the_keyboard_is_enough(page):
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#block-title")).to_have_text("Block 0/2/3")
    page.keyboard.press("PageDown")
    wait_for_colour(page, 1, 4, "running")


def test_text_of_the_run_never_becomes_html(page):
    page.locator("#failures summary").click()
    assert EVIL in page.locator("#failures details").inner_text()
    assert EVIL in page.locator("#failures .body p").first.inner_text()
    assert page.locator("main img, main b:not(.progress b), main script").count() == 0
    assert page.title() == "seg"


def test_colours_follow_time_host_and_attempts(page):
    for by, said in (("time", "s, slowest"), ("host", "node1"), ("attempts", "or more")):
        page.locator("#colours").get_by_text(by).click()
        assert said in page.locator("#legend").inner_text()
    assert colour(page, 2, 3) != colour(page, 0, 0)  # three attempts, one


def test_changes_appear_without_a_reload_and_open_details_stay_open(page, made):
    page.evaluate("window.loaded = 'once'")
    page.locator("#failures summary").click()
    page.locator("#z").fill("2")
    wait_for_colour(page, 0, 0, "waiting")
    made.done("2/0/0")
    made.failed("2/3/4", message="another one")
    wait_for_colour(page, 0, 0, "done")
    wait_for_colour(page, 3, 4, "quarantined")
    expect(page.locator("#failures-count")).to_have_text("2 blocks fail now")
    assert page.locator("#failures details").first.get_attribute("open") is not None
    assert page.evaluate("window.loaded") == "once"


def test_a_lost_database_is_announced_and_forgotten_when_it_is_back(page):
    page.route("**/api/overview*", lambda route: route.fulfill(json={
        "title": "seg", "steps": [], "workers": [], "worker_states": {}, "failures": [],
        "looked": "2026-01-01T00:00:00+00:00",
        "away": {"since": "2026-01-01T00:00:00+00:00", "message": "connection refused"},
    }))
    page.wait_for_selector("#banner:not([hidden])")
    assert "The database does not answer since" in page.locator("#banner").inner_text()
    page.unroute("**/api/overview*")
    page.wait_for_selector("#banner[hidden]", state="attached")
    page.wait_for_selector("#map[data-cell]")
