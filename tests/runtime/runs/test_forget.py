"""Runs are removed for good, and nothing else is."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from blockwise import FRAME, add_one, make_raw, run, store_of, stored_files
from em_blocks.cli.main import main
from em_blocks.errors import RefusedError
from em_blocks.runtime.runs import forget
from em_blocks.runtime.runs.forget import forget_run, removable
from em_blocks.runtime.runs.ownership import check_overwritable, size_of
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import LEDGER
from em_blocks.volumes.stores.store import delete_folder


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


@pytest.fixture
def done(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", block_shape=(20, 30, 50))
    assert run(task).ok
    return task


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_forgotten_run_leaves_neither_records_nor_outputs(done, raw):
    with store_of(done) as store:
        found = removable(store, done)
        nbytes = sum(map(len, files_below(Path(done.output) / "sum").values()))
        assert found.document() == {
            "run": "sum", "task": "add_one", "state": "done", "blocks": 1, "rows": 0,
            "outputs": {f"{done.output}/sum": nbytes},
        }
        forget_run(store, done)
        assert store.load() is None and not list(store.documents()) and removable(store, done) is None
        forget_run(store, done)  # there is nothing, which is no error
    assert not [name for name in stored_files(done) if name.startswith("sum")]
    assert run(done).ok


@pytest.mark.parametrize("place", ["array", "container"])
def test_nothing_is_deleted_through_a_link(done, tmp_path, place):
    """The record names a path; what a link put there leads to was not made by the run."""
    precious = tmp_path / "precious"
    path = Path(done.output) / "sum" if place == "array" else Path(done.output)
    shutil.move(path, precious)  # with the fingerprint of the run
    path.symlink_to(precious)
    before = files_below(precious)
    with store_of(done) as store:
        with pytest.raises(RefusedError, match=r"by the symbolic link.*was changed"):
            forget_run(store, done)
        assert store.load()["state"] == "done" and len(list(store.documents())) == 1
    assert files_below(precious) == before


def test_a_linked_parent_folder_is_the_recorded_place(done, tmp_path):
    """A run folder on another disk, by a link, is where the run wrote."""
    (tmp_path / "a").rename(tmp_path / "disk2")
    (tmp_path / "a").symlink_to(tmp_path / "disk2")
    with store_of(done) as store:
        forget_run(store, done)
    assert not (tmp_path / "disk2/out.zarr/sum/.zarray").exists()


def test_links_in_an_output_are_removed_but_not_followed(done, raw, tmp_path):
    (Path(done.output) / "sum/0").rename(tmp_path / "chunks")
    (Path(done.output) / "sum/0").symlink_to(tmp_path / "chunks")
    before = files_below(tmp_path / "chunks")
    with store_of(done) as store:
        forget_run(store, done)
    assert files_below(tmp_path / "chunks") == before and before
    assert not os.path.lexists(Path(done.output) / "sum/0")


def test_what_others_put_in_the_place_of_an_output_stays(done, raw):
    delete_folder(f"{done.output}/sum")
    other = Volume.create(f"{done.output}/sum", shape=raw.shape, dtype="uint16", frame=FRAME,
                          chunk_shape=(5, 10, 10))
    with store_of(done) as store:
        with pytest.raises(RefusedError, match="nothing in it says that this run made it"):
            forget_run(store, done)
        other.set_attributes(fingerprint="0123456789")
        with pytest.raises(RefusedError, match=r"made with other settings \(01234567\)"):
            forget_run(store, done)
    assert Volume.open(other.path).shape == raw.shape


def test_files_in_the_place_of_an_output_that_is_lost_stay(done):
    delete_folder(f"{done.output}/sum")
    note = Path(done.output) / "sum/notes.txt"
    note.parent.mkdir(exist_ok=True)
    note.write_text("no array")
    with store_of(done) as store:
        forget_run(store, done)
    assert note.read_text() == "no array"


def test_a_volume_that_no_run_made_is_not_overwritable(raw, tmp_path):
    task = add_one(raw, tmp_path / "b")
    check_overwritable(task, None)
    Volume.create(f"{task.output}/sum", shape=raw.shape, dtype="uint16", frame=FRAME,
                  chunk_shape=(5, 10, 10))
    with pytest.raises(RefusedError, match="only copy of other data"):
        check_overwritable(task, None)


@pytest.mark.parametrize("dies_in", ["clear", "delete_folder", "delete", "remove"])
def test_a_removal_that_was_killed_is_finished_by_the_next(done, monkeypatch, dies_in):
    class Killed(BaseException):
        pass

    def die(*args, **options):
        raise Killed

    with store_of(done) as store:
        with monkeypatch.context() as patched:
            if dies_in in ("delete_folder", "delete"):
                whole = forget.delete_folder
                partly = die if dies_in == "delete_folder" else (
                    lambda path, last: [whole(path, last=last[:2]), die()]
                )
                patched.setattr(forget, "delete_folder", partly)
            else:
                patched.setattr(store, dies_in, die)
            with pytest.raises(Killed):
                forget_run(store, done)
        assert store.load()["state"] == forget.REMOVING
        forget_run(store, done)
        assert store.load() is None
    assert not [name for name in stored_files(done) if name.startswith("sum")]


def test_while_it_is_removed_an_output_says_that_nothing_in_it_is_done(done, monkeypatch):
    def look(path, last):
        ledger = json.loads((Path(path) / LEDGER).read_text())
        assert ledger["state"] == "open"
        raise KeyboardInterrupt

    if not (Path(done.output) / "sum" / LEDGER).exists():
        pytest.skip("the run left no ledger")
    monkeypatch.setattr(forget, "delete_folder", look)
    with store_of(done) as store, pytest.raises(KeyboardInterrupt):
        forget_run(store, done)


def test_the_size_of_a_folder_counts_no_links(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"123")
    (tmp_path / "a/y").write_bytes(b"4567")
    (tmp_path / "a/self").symlink_to(tmp_path)
    assert 7 <= size_of(str(tmp_path / "a")) < 7 + 4096 and size_of("s3://em/a") is None


# -- the command ------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for z in range(4):
        tifffile.imwrite(images / f"{z}.tif", np.full((12, 16), z, "uint8"))
    path = tmp_path / "ingest.json"
    path.write_text(json.dumps({
        "kind": "ingest", "run": "in", "source": {"type": "images", "path": "images"},
        "output": "out/brain.zarr/raw", "voxel_size": [40, 4.6, 4.6], "chunk_shape": [4, 8, 8],
    }))
    assert call("ingest", path).exit_code == 0
    return path


def call(*arguments, **options):
    result = CliRunner().invoke(main, [str(a) for a in arguments], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_forget_lists_and_needs_a_yes(config, tmp_path):
    asked = call("forget", config)
    assert asked.exit_code == 2 and "add --yes" in asked.output
    assert "in (ingest, done): 1 done blocks" in asked.output and "out/brain.zarr/raw" in asked.output
    assert (tmp_path / "out/brain.zarr/raw/.zarray").exists()
    removed = call("forget", config, "--yes")
    assert removed.exit_code == 0 and "left in" in removed.output
    assert not list((tmp_path / "out/brain.zarr").rglob("0"))
    assert len(list((tmp_path / "images").iterdir())) == 4
    again = call("forget", config, "--yes")
    assert again.exit_code == 0 and "no run in: nothing to remove" in again.output
    assert call("ingest", config).exit_code == 0


def test_forget_prints_json_for_scripts(config):
    found = json.loads(call("forget", config, "--yes", "--json").stdout)
    (entry,) = found["removed"]
    assert entry["run"] == "in" and entry["blocks"] == 1
    (nbytes,) = entry["outputs"].values()
    assert nbytes > 0
    assert json.loads(call("forget", config, "--yes", "--json").stdout)["removed"] == []


def test_forget_refuses_while_a_scheduler_is_at_work(config, tmp_path):
    from em_blocks.cli.common import load_task, opened_store
    from em_blocks.runtime.runs.leases import this_owner

    with opened_store(load_task(config, (), None)) as store:
        assert store.take_lease(this_owner())
        refused = call("forget", config, "--yes")
        assert refused.exit_code == 3 and "nothing was removed" in refused.output
        assert (tmp_path / "out/brain.zarr/raw/.zarray").exists() and store.load() is not None


# -- overwriting ------------------------------------------------------------------------


def test_a_run_that_is_being_removed_begins_anew(done, monkeypatch):
    monkeypatch.setattr(forget, "delete_folder", lambda path, last: 1 / 0)
    with store_of(done) as store, pytest.raises(ZeroDivisionError):
        forget_run(store, done)
    monkeypatch.undo()
    report = run(done)
    assert report.ok and report.blocks["computed"] == 1 and report.blocks["skipped"] == 0


def test_overwrite_removes_what_the_record_names(done, raw, tmp_path):
    """With another output in the config, the earlier result of the run goes all the same."""
    moved = add_one(raw, tmp_path / "a", block_shape=(20, 30, 50), run_dir=str(tmp_path / "a"),
                    output=str(tmp_path / "elsewhere.zarr"))
    assert run(moved, overwrite=True).ok
    assert not (Path(done.output) / "sum/.zarray").exists()
    assert Volume.open(f"{moved.output}/sum").attributes["fingerprint"]


def test_overwrite_deletes_nothing_at_an_output_that_is_new_to_the_run(done, raw, tmp_path):
    precious = Volume.create(str(tmp_path / "b.zarr/sum"), shape=raw.shape, dtype="uint16", frame=FRAME,
                             chunk_shape=(5, 10, 10))
    moved = add_one(raw, tmp_path / "a", block_shape=(20, 30, 50), run_dir=str(tmp_path / "a"),
                    output=str(tmp_path / "b.zarr"))
    with pytest.raises(RefusedError, match="only copy of other data"):
        run(moved, overwrite=True)
    assert Volume.open(precious.path).attributes.get("fingerprint") is None
    assert (Path(done.output) / "sum/.zarray").exists() and run(done).blocks["computed"] == 0


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"adopt": True}])
def test_the_output_of_another_run_is_refused_whatever_flags(done, raw, tmp_path, options):
    other = add_one(raw, tmp_path / "a", run="other", block_shape=(20, 30, 50),
                    run_dir=str(tmp_path / "b"))
    with pytest.raises(RefusedError, match="belongs to run 'sum'"):
        run(other, **options)
    assert run(done).blocks["computed"] == 0
