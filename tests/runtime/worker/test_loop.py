"""What a worker records before it has a task."""

from blockwise import add_one, make_raw, run, store_of

ONLY_HERE = '''
import os

from blockwise import AddOne

if "EM_BLOCKS_SLOT" in os.environ:
    raise RuntimeError("no licence on this node")


class Licensed(AddOne):
    """A task whose module workers find, and cannot import."""
'''


def test_a_task_that_only_workers_cannot_import_ends_the_run_with_their_error(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "only_here.py").write_text(ONLY_HERE)
    monkeypatch.syspath_prepend(folder)
    from only_here import Licensed

    values = add_one(make_raw(tmp_path), tmp_path / "a", num_workers=2).model_dump()
    task = Licensed.from_dict(values)
    report = run(task)
    assert report.reason == (
        "workers cannot start, with RuntimeError in stage start: no licence on this node"
    )
    assert report.blocks["done"] == 0
    with store_of(task) as store:
        attempt = store.attempts.find_one({"error.stage": "start"})
    assert attempt["block"] is None and "only_here.py" in attempt["error"]["traceback"]
