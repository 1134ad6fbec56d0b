"""The page of recorded trainings: what its server tells, and the page in a real browser."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from em_blocks.cli.trainings.dashboard_runs import trainings_of
from em_blocks.db.trainings.run_database import run_database
from em_blocks.runtime.dashboard.server import open_trainings
from em_blocks.runtime.dashboard.trainings import MOST_POINTS
from em_blocks.training.records.importing import import_training
from em_blocks.training.records.metrics_file import metrics_of
from recorded_training import write_training

CHROMIUM = "/usr/bin/chromium"
LOSS, SCORE = "train/loss", "validation/affinities/cut_ap"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two trainings, the second with pictures and a name that is no HTML."""
    root = tmp_path_factory.mktemp("trainings")
    write_training(root / "one")
    two = write_training(root / "<b>two", seed=1)
    for place, names in (("panels", ("vnc_4", "vnc_8")), ("snapshots", ("8",))):
        (two / "training" / place).mkdir()
        for name in names:
            picture = Image.fromarray(np.full((8, 8, 3), int(name[-1]), np.uint8))
            picture.save(two / "training" / place / f"{name}.png")
    (two / "training" / "secret.png").write_bytes(b"not listed")
    return root


@contextmanager
def served(folder, db):
    with trainings_of(folder, db) as source, \
         open_trainings(source, host="127.0.0.1", port=0) as dashboard:  # fmt: skip
        thread = threading.Thread(target=dashboard.serve)
        thread.start()
        try:
            yield dashboard.url
        finally:
            dashboard.stop()
            thread.join(20)


@pytest.fixture(scope="module")
def url(root, tmp_path_factory):
    """The page of the run database."""
    address = str(tmp_path_factory.mktemp("runs"))
    with run_database(address) as store:
        for folder in (root / "one", root / "<b>two"):
            import_training(store, folder)
        with served(None, address) as url:
            yield url


def ask(url, what, **values):
    """Status and answer: JSON, or the bytes of a picture."""
    query = urllib.parse.urlencode(values, doseq=True)
    try:
        with urllib.request.urlopen(f"{url.rpartition('/')[0]}/api/{what}?{query}", timeout=20) as said:
            body = said.read()
            return said.status, body if what == "picture" else json.loads(body)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_trainings_are_listed_with_what_a_table_needs(url):
    status, (one, two) = ask(url, "trainings")
    assert status == 200
    assert (one["key"], one["label"], one["state"]) == ("1", "1 (tiny)", "finished")
    assert two["best"] == {"iteration": 4, "score": "affinities/cut_ap", "value": 0.26}


def test_curves_come_by_name_and_training(url):
    _, found = ask(url, "curves", run=["1", "2"])
    assert found.keys() == {LOSS, SCORE}
    assert found[SCORE]["1"] == {"steps": [4, 8], "values": [0.25, 0.125]}
    assert found[LOSS]["2"]["values"][0] == 2.0


def test_a_long_curve_is_thinned_and_keeps_its_last_point(root, tmp_path):
    folder = write_training(tmp_path / "long")
    curves = metrics_of(folder)
    curves.start(0, {})
    for step in range(1, 2 * MOST_POINTS + 2):
        curves.metrics(step, {LOSS: step / 2})
    curves.finish("finished", None)
    with served(tmp_path, None) as url:
        (training,) = ask(url, "trainings")[1]
        steps = ask(url, "curves", run=training["key"])[1][LOSS][str(folder)]["steps"]
    assert steps[-1] == 2 * MOST_POINTS + 1 and 600 < len(steps) <= MOST_POINTS
    assert {b - a for a, b in pairwise(steps)} == {3}


def test_differences_and_pictures_are_those_of_the_chosen_ones(url):
    assert ask(url, "differences", run=["1", "2"])[1] == {"seed": [0, 1]}
    pictures = ask(url, "pictures", run=["1", "2"])[1]
    assert [(p["run"], p["name"], p["iteration"]) for p in pictures] == [
        ("2", "snapshots", 8), ("2", "vnc", 4), ("2", "vnc", 8)
    ]
    status, body = ask(url, "picture", run="2", path=pictures[1]["path"])
    assert (status, body[:4]) == (200, b"\x89PNG")


@pytest.mark.parametrize(("what", "values"), [
    ("curves", {"run": "9"}), ("curves", {"run": "/etc"}),
    ("picture", {"run": "2", "path": "training/secret.png"}),
    ("picture", {"run": "2", "path": "training/panels/../../config.json"}),
])
def test_what_was_not_listed_is_not_told(url, what, values):
    status, said = ask(url, what, **values)
    assert status == 404 and said["error"]


def test_folders_outside_of_the_chosen_one_are_not_told(root):
    with served(root / "one", None) as url:
        (one,) = ask(url, "trainings")[1]
        assert ask(url, "curves", run=one["key"])[0] == 200
        assert ask(url, "curves", run=str(root / "<b>two"))[0] == 404


@pytest.fixture(scope="module")
def browser():
    """Chromium. Its absence is a failure: nothing else would notice a page that does not work."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"these tests need a browser at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """The page, loaded; what it complains about fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(20_000)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(url)
    page.wait_for_selector("#curves svg")
    yield page
    page.close()
    assert complaints == []


def lines(page, name):
    """Trainings that have a line in a diagram."""
    found = page.locator(f'figure[data-name="{name}"] polyline.line')
    return [found.nth(n).get_attribute("data-key") for n in range(found.count())]


def test_the_newest_training_is_shown_and_another_one_over_it(page):
    assert lines(page, LOSS) == lines(page, SCORE) == ["2"]
    assert "Choose two" in page.inner_text("#differences-note")
    page.check('#runs input[value="1"]')
    page.wait_for_selector("#differences tbody tr")
    assert lines(page, LOSS) == ["1", "2"]
    assert page.inner_text("#differences tbody tr") == "seed\t0\t1"
    page.uncheck('#runs input[value="2"]')
    expect(page.locator("#curves polyline.line")).to_have_count(2)
    assert lines(page, LOSS) == ["1"]


def test_curves_are_chosen_smoothed_and_read_off(page):
    page.fill("#filter", "cut_ap")
    assert lines(page, LOSS) == [] and lines(page, SCORE) == ["2"]
    page.fill("#filter", "beauty")
    assert LOSS in page.inner_text("#curves")
    page.fill("#filter", "loss")
    page.fill("#smooth", "3")
    assert page.locator("polyline.measured").count() == 1
    page.check("#log")
    assert lines(page, LOSS) == ["2"]
    page.locator("#curves svg").hover()
    assert page.inner_text("#curves .values").startswith("at ")
    assert "2 (tiny): " in page.inner_text("#curves .values")


def test_pictures_are_the_newest_or_those_of_an_iteration(page):
    page.wait_for_selector("#pictures img")
    captions = page.locator("#pictures figcaption").all_inner_texts()
    assert captions == ["2 (tiny): snapshots, iteration 8", "2 (tiny): vnc, iteration 8"]
    page.select_option("#iteration", "4")
    captions = page.locator("#pictures figcaption").all_inner_texts()
    assert captions == ["2 (tiny): vnc, iteration 4"]
    expect(page.locator("#pictures img")).to_have_js_property("naturalWidth", 8)


def test_names_are_text(page):
    assert "<b>two" in page.inner_text("#runs")
    assert page.locator("#runs b").count() == 0
