"""The README's queries run, the tables of configs are complete, the commands named exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from blockwise import add_one, make_raw, run, store_of
from em_blocks.cli.main import main
from em_blocks.db.synapses import SynapseStore
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.tasks import TASKS, task_class

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGS = (ROOT / "docs/configs.md").read_text()
TEXTS = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
QUERIES = re.findall(r"// (.+)\n(db\.(?:.|\n)+?)\n(?=\n|```)", README)
STEP = re.compile(r"\.(\w+)\(")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a poison block, so that every query finds something."""
    folder = tmp_path_factory.mktemp("readme")
    task = add_one(make_raw(folder), folder / "a", faults={"0/1/2": "raise"}, max_retries=1,
                   run="fib25_affinities")
    run(task)
    with store_of(task) as store:
        synapses = SynapseStore(store.client, task.db_name, "synapses")
        synapses.prepare()
        synapses.replace_block("0/0/0", Synapses(
            id=[1, 2, 3], pre=[[40, 4, 4]] * 3, post=[[80, 8, 8]] * 3, score=[5, 6, 7],
            pre_segment=[1, 1, 2], post_segment=[7, 7, 7],
        ))
        done = store.blocks.find_one({"run": task.run, "state": "done"})
        counts = {"synapses": 3}
        store.blocks.insert_one({**done, "_id": "synapses/0/0/0", "run": "synapses", "counts": counts})
    return task


def steps(query):
    """``db.blocks.find(...).sort(...)`` as [("blocks", []), ("find", [...]), ("sort", [...])]."""
    collection, _, rest = query.removeprefix("db.").partition(".")
    calls, rest = [], "." + rest
    while rest := rest.strip():
        name = STEP.match(rest)
        arguments, end = [], name.end()
        while rest[end] != ")":
            value, length = json.JSONDecoder().raw_decode(rest[end:])
            arguments.append(value)
            end += length
            end += len(rest[end:]) - len(rest[end:].lstrip(", \n"))
        calls.append((name.group(1), arguments))
        rest = rest[end + 1 :]
    return collection, calls


METHODS = {"findOne": "find_one", "countDocuments": "count_documents"}


def execute(database, query):
    """The query through pymongo."""
    collection, calls = steps(query)
    result = database[collection]
    for name, arguments in calls:
        if name == "sort":
            arguments = [list(arguments[0].items())]
        result = getattr(result, METHODS.get(name, name))(*arguments)
    return result if isinstance(result, (dict, int)) else list(result)


def test_there_are_ten_queries_on_runs_and_five_on_synapses():
    assert len(QUERIES) == 15


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_finds_something(finished, title, query):
    with store_of(finished) as store:
        assert execute(store.database, query), title


def test_the_progress_query_agrees_with_status(finished):
    counting = next(q for title, q in QUERIES if title.startswith("progress"))
    with store_of(finished) as store:
        status = run_status(store)
        states = {d["_id"]: d["n"] for d in execute(store.database, counting)}
    assert states == {k: n for k, n in status["blocks"].items() if k in states}
    assert status["blocks"]["quarantined"] == states["quarantined"] == 1


@pytest.mark.skipif(shutil.which("mongosh") is None, reason="mongosh, a separate program, is absent")
@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_runs_in_mongosh(finished, title, query):
    with store_of(finished) as store:
        host, port = store.client.address
        done = subprocess.run(
            ["mongosh", "--quiet", "--norc", f"mongodb://{host}:{port}/em_blocks", "--eval", query],
            capture_output=True, text=True,
        )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.parametrize("kind", TASKS.builtin)
def test_every_key_of_a_config_is_explained(kind):
    for name in task_class(kind).model_fields:
        assert re.search(rf"^\| `{name}`", CONFIGS, re.MULTILINE), name


def test_every_verb_in_the_readme_exists():
    for verb in set(re.findall(r"em-blocks (?:db )?([a-z]+(?:-[a-z]+)*)\b", TEXTS)) - {"db"}:
        arguments = ["db", verb] if verb in ("start", "stop", "uri") else [verb]
        result = CliRunner().invoke(main, [*arguments, "--help"])
        assert result.exit_code == 0, verb


def test_every_file_that_the_readme_names_exists():
    for name in set(re.findall(r"(?:benchmarks|configs|setups|docker|pipelines)/[\w./]+\w", TEXTS)):
        assert (ROOT / name).exists(), name
