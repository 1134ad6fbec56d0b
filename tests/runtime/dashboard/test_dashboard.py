"""The page's server: what it tells, to whom, and that it only reads."""

import http.client
import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from blockwise import wait_for
from em_blocks.db.connect import database_home
from em_blocks.db.server import running_uri
from em_blocks.errors import ConfigError
from em_blocks.runtime.dashboard.server import open_dashboard
from recorded import EVIL, Recorded, served, step_tasks, stores


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run at work with failures, and a step that was not started."""
    home = tmp_path_factory.mktemp("dashboard")
    with stores(home, "seg.edges") as (store,):
        made = Recorded(store)
        made.first_done(7)
        made.failed("1/0/2")
        made.worker("w0", blocks=["0/2/0"], heartbeat=made.ago(-3600))
        yield home


@pytest.fixture(scope="module")
def page(home):
    with served(home) as dashboard:
        wait_for_steps(dashboard.url)
        yield dashboard.url


def get(url, **headers):
    """Status, headers and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def ask(url, path):
    status, _, body = get(url + path)
    return status, json.loads(body)


def wait_for_steps(url):
    """The overview, as soon as the database was looked at."""

    def looked():
        found = ask(url, "api/overview")[1]
        return found if found["looked"] or found["away"] else None

    return wait_for(looked)


def test_the_page_tells_how_all_steps_stand(page):
    status, found = ask(page, "api/overview")
    assert status == 200 and found["title"] == "seg" and found["away"] is None
    assert {s["step"]: s["state"] for s in found["steps"]} == {"edges": "running", "lut": "waiting"}
    blocks = found["steps"][0]["blocks"]
    assert (blocks["done"], blocks["quarantined"], blocks["running"]) == (7, 1, 1)
    assert found["failures"][0]["message"] == EVIL


def test_a_section_that_has_not_changed_is_not_sent_again(page):
    status, headers, body = get(page + "api/map?step=edges&z=1")
    assert status == 200 and json.loads(body)["shape"] == [4, 5]
    again, _, nothing = get(page + "api/map?step=edges&z=1", **{"If-None-Match": headers["ETag"]})
    assert (again, nothing) == (304, b"")


def test_a_block_is_told_with_its_traceback_and_command(page):
    status, found = ask(page, "api/block?step=edges&block=1/0/2")
    assert status == 200 and "Traceback" in found["record"]["error"]["traceback"]
    assert found["replay"] == "em-blocks replay c.json 1/0/2 --step edges"


@pytest.mark.parametrize(("path", "said"), [
    ("api/map?step=edges&z=99", "the grid has 3"), ("api/map?step=edges&z=-1", "is no section"),
    ("api/map?step=edges", "is no section"), ("api/map?step=lut&z=0", "not started"),
    ("api/block?step=edges&block=9/0/0", "there is no block"),
    ("api/block?step=edges&block=$where", "not of the form"),
])
def test_questions_without_an_answer_say_why(page, path, said):
    status, found = ask(page, path)
    assert status == 404 and said in found["error"]


def test_an_unknown_step_is_no_crash(page):
    status, found = ask(page, "api/map?step=nope&z=0")
    assert status == 503 and "no step 'nope'" in found["error"]


@pytest.mark.parametrize("path", ["", "app.js", "map.js", "style.css", "api/overview"])
def test_every_answer_forbids_foreign_scripts_and_frames(page, path):
    status, headers, _ = get(page + path)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Access-Control-Allow-Origin"] is None


def test_another_host_name_is_refused(page):
    """A page of the internet can point its own name to 127.0.0.1."""
    port = urlsplit(page).port
    for host in (f"evil.example:{port}", "evil.example", ""):
        status, _, body = get(page + "api/overview", Host=host)
        assert status == 403 and b"steps" not in body, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert get(page + "api/overview", Host=host)[0] == 200, host


def test_without_the_word_of_its_address_nothing_is_told(page):
    parts = urlsplit(page)
    for path in ("/", "/api/overview", f"/{parts.path[1:-3]}/api/overview", "/../api/overview"):
        status, _, body = get(f"http://{parts.netloc}{path}")
        assert status == 404 and b"seg" not in body


def test_only_reading_is_allowed_and_only_the_pages_own_files(page):
    parts = urlsplit(page)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        connection.request(method, parts.path + "api/overview")
        assert connection.getresponse().status == 405
        connection.close()
    for path in ("../app.py", "..%2fapp.py", "%2e%2e/server.py", "/etc/passwd"):
        assert get(page + path)[0] == 404


def test_nothing_is_written_to_the_database(home, page):
    def writes():
        counters = store.client.admin.command("serverStatus")["opcounters"]
        return {name: counters[name] for name in ("insert", "update", "delete")}

    with stores(home, "seg.edges") as (store,):
        before = writes()
        for path in ("api/overview", "api/map?step=edges&z=0", "api/block?step=edges&block=0/0/0"):
            get(page + path)
        assert writes() == before


def test_it_can_be_opened_before_the_run_and_leaves_nothing(tmp_path):
    with served(tmp_path / "later") as dashboard:
        found = wait_for_steps(dashboard.url)
        assert found["steps"] == [] and "no run of this config was started" in found["away"]["message"]
        assert ask(dashboard.url, "api/map?step=edges&z=0")[0] == 503
    assert not (tmp_path / "later").exists()


def test_it_starts_the_database_of_a_run_that_has_ended_and_stops_it(tmp_path):
    with stores(tmp_path, "seg.edges") as (store,):
        Recorded(store).end("stopped")
    assert running_uri(database_home(tmp_path)) is None
    with served(tmp_path) as dashboard:
        assert wait_for_steps(dashboard.url)["steps"][0]["state"] == "stopped"
    assert running_uri(database_home(tmp_path)) is None


def test_a_port_that_is_taken_is_one_clear_message(home, page):
    with pytest.raises(ConfigError, match="cannot be listened on"):
        with open_dashboard(step_tasks(home), title="x", host="127.0.0.1", port=urlsplit(page).port):
            pass


def test_the_loopback_interface_is_private_by_any_name(home):
    for host in ("localhost", "127.0.0.1", "127.0.0.2"):
        with open_dashboard(step_tasks(home), title="x", host=host, port=0) as dashboard:
            assert dashboard.is_private
