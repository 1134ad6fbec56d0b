"""Another look-up table: only the rows of changed supervoxels are written."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import mapping
from em_blocks.cli.main import main
from em_blocks.db.connect import connect
from em_blocks.db.rows import RowStore
from em_blocks.db.runs import RunStore, grid_document
from em_blocks.errors import FingerprintMismatchError, RefusedError, VolumeError
from em_blocks.kernels.synapses.table import UNMAPPED
from em_blocks.runtime.runs.preflight import check_task
from em_blocks.runtime.runs.remap import remap
from em_blocks.tasks.synapses.map_synapses import MapSynapses
from em_blocks.volumes.stores.tables import BlockTables
from mapping import (
    assert_same_rows,
    here,
    make_lut,
    make_supervoxels,
    make_synapses,
    mapping_settings,
)

uri, database = mapping.uri, mapping.database


def proofread(ids):
    """The usual segments, but a few neurons are merged and one is split."""
    segments = ids // 7 + 1
    segments[segments == 3] = 2
    segments[ids % 7 == 2] += 2**41
    return segments


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Supervoxels, the table they are mapped with, and that of a proofread segmentation."""
    folder = tmp_path_factory.mktemp("labels")
    volume = make_supervoxels(folder)
    new = make_lut(volume, folder, "new", segment=proofread, fingerprint="new")
    return volume, make_lut(volume, folder), new


@pytest.fixture
def settings(inputs, database, tmp_path):
    return mapping_settings(inputs[0], tmp_path, database, lut=inputs[1])


@pytest.fixture
def sites(settings):
    """A function that makes the step that maps sites."""
    return lambda **options: MapSynapses.from_dict({**settings, **options}).sites()


def map_here(task, database):
    """Map all blocks in this process, and record the run as the runner does."""
    here(task, database)
    checked = check_task(task)
    with connect(database.uri) as client:
        store = RunStore(client, task.db_name, task.run)
        store.create(
            {"task": task.kind, "fingerprint": checked.fingerprint, "identity": checked.identity,
             "config": task.stored_config(), "grid": grid_document(checked.grid),
             "outputs": {output.name: output.path for output in task.output_specs()}}, epoch=1,
        )
        store.update(state="done")


def document(database, run="mapped.sites"):
    with connect(database.uri) as client:
        return RunStore(client, database.name, run).load()


@pytest.fixture
def mapped(database, sites):
    database.fill(make_synapses(200))
    map_here(sites(), database)
    return database.rows()


def test_only_rows_of_changed_supervoxels_are_written(database, sites, inputs, mapped):
    found = remap(sites(lut=inputs[2]))
    rows = database.rows()
    for side, written in (("pre", found.pre), ("post", found.post)):
        ids = getattr(rows, f"{side}_supervoxel")
        expected = np.where(ids > 0, proofread(ids.copy()), 0)
        np.testing.assert_array_equal(getattr(rows, f"{side}_segment"), expected)
        assert written == (expected != getattr(mapped, f"{side}_segment")).sum()
        assert 0 < written < len(rows)
    labels = np.unique(inputs[0].read(inputs[0].box)).astype(np.int64)[1:]
    assert found.supervoxels == (proofread(labels.copy()) != labels // 7 + 1).sum()
    assert document(database)["config"]["lut"] == inputs[2] and document(database)["state"] == "done"


def test_it_gives_the_rows_of_a_mapping_from_the_beginning(database, sites, inputs, mapped):
    remap(sites(lut=inputs[2]))
    changed = database.rows()
    database.fill(make_synapses(200))
    here(sites(lut=inputs[2]), database)
    assert_same_rows(changed, database.rows())


def test_the_same_table_changes_nothing(database, sites, inputs, mapped):
    assert remap(sites()) is None
    assert remap(sites(lut=inputs[2])).pre and remap(sites(lut=inputs[2])) is None
    assert remap(sites(run_dir=sites().run_dir, lut=inputs[1])).pre
    assert_same_rows(database.rows(), mapped)


def test_a_dry_run_counts_and_changes_nothing(database, sites, inputs, mapped):
    assert remap(sites(lut=inputs[2]), dry_run=True).supervoxels > 0
    assert_same_rows(database.rows(), mapped)
    assert document(database)["config"]["lut"] == inputs[1]


def test_a_mapping_without_segments_gets_some(database, sites, inputs):
    database.fill(make_synapses(200))
    map_here(sites(lut=None), database)
    assert (database.rows().pre_segment == UNMAPPED).all()
    found = remap(sites())
    assert found.pre == found.post == 200
    rows = database.rows()
    database.fill(make_synapses(200))
    here(sites(), database)
    assert_same_rows(rows, database.rows())


@pytest.mark.parametrize("target", [1, 2])
def test_interrupted_it_is_refused_to_others_and_goes_on_or_back(
    database, sites, inputs, mapped, target, monkeypatch
):
    calls, replace_values = [], RowStore.replace_values

    def breaks(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return replace_values(*arguments)

    monkeypatch.setattr(RowStore, "replace_values", breaks)
    with pytest.raises(KeyboardInterrupt):
        remap(sites(lut=inputs[2]))
    monkeypatch.undo()
    with connect(database.uri) as client, pytest.raises(RefusedError, match="was interrupted"):
        sites().check_rows(database.context(client, "mapped.sites"))
    remap(sites(lut=inputs[target]))
    rows = database.rows()
    database.fill(make_synapses(200))
    here(sites(lut=inputs[target]), database)
    assert_same_rows(rows, database.rows())
    assert document(database)["remap"] is None


def test_skeletons_are_found_anew_because_their_candidates_changed(
    database, settings, inputs, mapped, tmp_path
):
    nodes = [{"id": 1, "position": mapped.pre[0].tolist(), "neuron_id": 7, "parent_id": None}]
    (tmp_path / "nodes.json").write_text(json.dumps(nodes))
    skeletons = {"path": str(tmp_path / "nodes.json")}
    task = MapSynapses.from_dict({**settings, "skeletons": skeletons})
    for step in task.skeleton_steps():
        map_here(step, database)
    assert (database.rows().pre_skeleton == 7).any()
    new = MapSynapses.from_dict({**settings, "skeletons": skeletons, "lut": inputs[2]})
    remap(new.sites(), dependents=new.skeleton_steps())
    assert (database.rows().pre_skeleton == UNMAPPED).all()
    assert not any("skeleton" in d["pre"] for d in database.documents().values())
    for step in task.skeleton_steps():
        assert document(database, step.run) is None
    assert not [path for path in (tmp_path / "skeletons").rglob("*") if path.is_file()]


def test_other_differences_are_refused(database, sites, inputs, mapped):
    with pytest.raises(FingerprintMismatchError, match="search_radius_nm"):
        remap(sites(lut=inputs[2], search_radius_nm=10))


def test_a_table_that_lacks_fragments_changes_nothing(database, sites, inputs, mapped, tmp_path):
    poor = make_lut(inputs[0], tmp_path, "poor", segment=proofread, fingerprint="poor")
    tables = BlockTables(poor)
    last = tables.read("1/0/1")
    tables.write("1/0/1", {name: column[1:] for name, column in last.items()})
    with pytest.raises(VolumeError, match=r"1 fragments of .* Nothing was changed"):
        remap(sites(lut=poor))
    assert_same_rows(database.rows(), mapped)


def test_the_command_changes_the_table_and_says_what_it_did(
    database, settings, inputs, mapped, tmp_path
):
    config = tmp_path / "map.json"
    config.write_text(json.dumps(settings))
    call = ["map-synapses", str(config), "--lut", inputs[2]]
    shown = CliRunner().invoke(main, [*call, "--dry-run"])
    assert shown.exit_code == 0 and "supervoxels have another segment" in shown.stderr
    assert_same_rows(database.rows(), mapped)
    # All blocks count as done, so that no worker is started afterwards.
    with connect(database.uri) as client:
        store = RunStore(client, database.name, "mapped.sites")
        for block in MapSynapses.from_dict(settings).sites().grid().blocks():
            store.blocks.insert_one({"_id": f"mapped.sites/{block.key}", "run": "mapped.sites",
                                     "state": "done", "shape": list(block.write_box.shape),
                                     "index": list(block.index), "epoch": 1, "checksums": {},
                                     "seconds": {}, "counts": {}})
        store.update(measured={})
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    assert "presynaptic and" in done.stderr
    assert document(database)["config"]["lut"] == inputs[2]
    other = CliRunner().invoke(main, ["map-synapses", str(config)])
    assert other.exit_code == 3 and f"--lut {inputs[1]} changes the segments" in other.stderr
    missing = CliRunner().invoke(main, [*call[:3], str(tmp_path / "nowhere")])
    assert missing.exit_code == 2 and "no look-up table" in missing.stderr
