"""Sites of stored synapses get supervoxels and segments, whatever the blocks are."""

import contextlib
import os
import signal

import numpy as np
import pytest

import mapping
from blockwise import block_documents, run, start_in_background, store_of, wait_for
from em_blocks.db.connect import connect
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError, IncompleteInputError, RefusedError, VolumeError
from em_blocks.geometry import BlockGrid, Box, Frame
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.outputs import TableOutput
from em_blocks.runtime.runs.preflight import check_task
from em_blocks.runtime.runs.verify import damaged_blocks
from em_blocks.tasks.synapses.map_synapses import MapSynapses
from em_blocks.volumes import Volume
from mapping import (
    FRAME,
    RADIUS,
    RUN,
    SHAPE,
    assert_same_rows,
    here,
    make_lut,
    make_supervoxels,
    make_synapses,
    mapping_settings,
)

uri, database = mapping.uri, mapping.database


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Supervoxels, and the path of a look-up table."""
    folder = tmp_path_factory.mktemp("labels")
    volume = make_supervoxels(folder)
    return volume, make_lut(volume, folder)


@pytest.fixture
def make(inputs, database, tmp_path):
    """A function that makes a config; `labels` and `lut` may be replaced."""
    volume, lut = inputs

    def make(**options):
        options = {"lut": lut, **options}
        return MapSynapses.from_dict(mapping_settings(volume, tmp_path, database, **options))

    return make


def slow_objects(volume, positions, radius):
    """Supervoxel at every position: the voxel's, or that of the nearest of all labelled voxels."""
    labels = volume.read(volume.box)
    centres = np.argwhere(labels) + 0.5
    names = labels[labels > 0]
    found = []
    for site in as_voxels(positions, voxel_size=volume.frame.voxel_size, offset=volume.frame.offset):
        here = labels[tuple(np.floor(site).astype(int))]
        squared = (((site - centres) * volume.frame.voxel_size) ** 2).sum(axis=1)
        near = names[squared == squared.min()].min() if squared.min() <= radius**2 else 0
        found.append(int(here or near))
    return np.array(found)


def expected(volume, synapses, radius=RADIUS):
    columns = {}
    for side in ("pre", "post"):
        ids = slow_objects(volume, getattr(synapses, side), radius)
        columns[f"{side}_supervoxel"] = ids
        columns[f"{side}_segment"] = np.where(ids > 0, ids // 7 + 1, 0)
    return synapses.sorted(), {name: ids[np.argsort(synapses.id)] for name, ids in columns.items()}


@pytest.mark.parametrize("block_shape", [SHAPE, (5, 12, 13), (3, 5, 4), (1, 22, 2)])
def test_any_blocks_map_what_a_search_of_the_whole_volume_finds(inputs, database, make, block_shape):
    synapses = make_synapses()
    database.fill(synapses)
    counts = here(make(block_shape=block_shape).sites(), database)
    rows, columns = expected(inputs[0], synapses)
    assert_same_rows(database.rows(), rows.replace(**columns))
    supervoxels = np.concatenate([columns["pre_supervoxel"], columns["post_supervoxel"]])
    direct = np.concatenate([slow_objects(inputs[0], p, 0) for p in (synapses.pre, synapses.post)])
    assert counts == {
        "sites": 2 * len(synapses), "background": int((supervoxels == 0).sum()),
        "mapped": int((supervoxels > 0).sum()),
        "searched": int((direct == 0).sum() - (supervoxels == 0).sum()),
    }
    assert counts["background"] > 0 < counts["searched"]


def test_a_block_without_sites_reads_nothing(inputs, database, make, monkeypatch):
    database.fill(Synapses(id=[3], pre=[FRAME.offset], post=[np.add(FRAME.offset, 1.0)]))
    boxes, read = [], Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box: boxes.append(box) or read(self, box))
    here(make(block_shape=(3, 5, 4)).sites(), database)
    assert len(boxes) == 1 and boxes[0].size < 5 * 25 * 25


def test_without_a_table_only_supervoxels_are_stored(database, make):
    database.fill(make_synapses())
    here(make(lut=None).sites(), database)
    rows = database.rows()
    assert (rows.pre_segment == UNMAPPED).all() and (rows.pre_supervoxel != UNMAPPED).all()
    assert all("segment" not in d["pre"] for d in database.documents().values())


def test_labels_may_be_segments_already(database, make):
    database.fill(make_synapses())
    here(make(lut=None, labels_are_segments=True).sites(), database)
    rows = database.rows()
    np.testing.assert_array_equal(rows.post_segment, rows.post_supervoxel)
    assert (rows.post_segment > 0).any()


def test_labels_of_another_voxel_size_are_found_by_nm(inputs, database, make, tmp_path):
    values = inputs[0].read(inputs[0].box)[:, ::2, ::2]
    coarse = Volume.create(
        str(tmp_path / "coarse.zarr/ids"), shape=values.shape, dtype="uint64", chunk_shape=(9, 11, 13),
        frame=Frame((40.0, 9.2, 9.2), FRAME.offset),
    )
    coarse.write(coarse.box, values)
    synapses = make_synapses()
    database.fill(synapses)
    here(make(labels=coarse.path, lut=None).sites(), database)
    rows = database.rows()
    at = slow_objects(coarse, rows.pre, RADIUS)
    np.testing.assert_array_equal(rows.pre_supervoxel, at)


# -- on workers ----------------------------------------------------------------------------


def problems(task):
    with store_of(task) as store:
        return [problem for _, problem in damaged_blocks(task, store) if problem]


def test_workers_map_every_site_and_what_is_forgotten_or_damaged_is_done_again(
    inputs, database, make
):
    synapses = make_synapses()
    database.fill(synapses)
    task = make(num_workers=2).sites()
    report = run(task)
    assert report.ok and report.blocks["computed"] == 8
    rows, columns = expected(inputs[0], synapses)
    mapped = rows.replace(**columns)
    assert_same_rows(database.rows(), mapped)
    assert not problems(task)
    with connect(database.uri) as client:
        changed = mapped.select([0]).replace(pre_supervoxel=[12345])
        database.store(client).update(changed, ["pre_supervoxel"])
    assert len(problems(task)) == 1
    documents = block_documents(task)
    with store_of(task) as store:
        store.blocks.delete_many({"run": task.run})
    report = run(make().sites())
    assert report.ok and report.blocks["computed"] == 8 and report.counts["sites"] == 120
    assert_same_rows(database.rows(), mapped)
    for key, document in block_documents(task).items():
        assert document["checksums"] == documents[key]["checksums"]


def test_synapses_that_are_stored_anew_are_mapped_again(inputs, database, make):
    """The extraction's rows were replaced: done blocks are not done any more."""
    synapses = make_synapses()
    database.fill(synapses)
    task = make().sites()
    assert run(task).ok and run(task).blocks["computed"] == 0
    mapped = database.rows()
    with connect(database.uri) as client:  # one block of the extraction is done again
        again = synapses.select(np.arange(len(synapses)) % 3 == 1).select([0])
        database.store(client).replace_block("0/0/1", again)
    report = run(task)
    assert report.ok and 0 < report.blocks["computed"] <= 2
    assert_same_rows(database.rows(), mapped.select(np.isin(mapped.id, database.rows().id)))
    database.fill(make_synapses(seed=5))  # another detection altogether, and another setting
    assert run(make(lut=None).sites(), overwrite=True).ok
    rows, columns = expected(inputs[0], make_synapses(seed=5))
    names = ("pre_supervoxel", "post_supervoxel")
    assert_same_rows(database.rows(), rows.replace(**{name: columns[name] for name in names}))


def test_a_killed_run_is_finished_by_the_next(inputs, database, make, tmp_path):
    synapses = make_synapses()
    database.fill(synapses)
    task = make(block_shape=(3, 8, 7)).sites()
    process = start_in_background(task, tmp_path)
    with store_of(task) as store:
        wait_for(lambda: store.counts()[DONE] or process.poll() is not None, timeout_s=120)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    np.testing.assert_array_equal(database.rows().id, synapses.sorted().id)
    report = run(task)
    assert report.ok and report.blocks["skipped"] > 0
    rows, columns = expected(inputs[0], synapses)
    assert_same_rows(database.rows(), rows.replace(**columns))


def test_overwriting_forgets_all_fields_that_an_earlier_mapping_wrote(database, make):
    synapses = make_synapses()
    database.fill(synapses)
    task = make().sites()
    here(task, database)
    with connect(database.uri) as client:
        task.output_specs()[0].remove(database.context(client, task.run))
    assert_same_rows(database.rows(), synapses.sorted())


def test_sites_in_masked_blocks_stay_unmapped_and_are_not_looked_for_again(
    inputs, database, make, tmp_path
):
    mask = Volume.create(
        str(tmp_path / "mask.zarr/mask"), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=SHAPE
    )
    values = np.ones(SHAPE, np.uint8)
    values[:5, :12, :13] = 0
    mask.write(mask.box, values)
    synapses = make_synapses()
    database.fill(synapses)
    report = run(make(mask=mask.path).sites())
    assert report.ok and report.blocks["masked"] == 1 and report.blocks["computed"] == 7
    rows, columns = expected(inputs[0], synapses)
    for side in ("pre", "post"):
        voxels = as_voxels(getattr(rows, side), voxel_size=FRAME.voxel_size, offset=FRAME.offset)
        masked = (voxels < (5, 12, 13)).all(axis=1)
        assert masked.any()
        for name in ("supervoxel", "segment"):
            wanted = np.where(masked, UNMAPPED, columns[f"{side}_{name}"])
            np.testing.assert_array_equal(getattr(database.rows(), f"{side}_{name}"), wanted)


# -- bad input -----------------------------------------------------------------------------


def checked(task, database):
    """What the runner asks before it claims the run."""
    check_task(task)
    with connect(database.uri) as client:
        task.check_rows(database.context(client, task.run))


def test_a_site_outside_of_the_labels_is_an_error_or_stays_unmapped(database, make):
    synapses = make_synapses()
    post = synapses.post.copy()
    post[[4, 9]] = FRAME.to_roi(Box((0, 0, 0), SHAPE)).end
    synapses = synapses.replace(post=post)
    database.fill(synapses)
    lost = synapses.id[[4, 9]]
    message = rf"2 synapses .* outside of .* id {lost.min()} at \(760"
    with pytest.raises(ConfigError, match=message):
        checked(make().sites(), database)
    task = make(outside="leave").sites()
    checked(task, database)
    assert here(task, database)["sites"] == 2 * len(synapses) - 2
    rows = database.rows()
    np.testing.assert_array_equal(rows.post_supervoxel == UNMAPPED, np.isin(rows.id, lost))
    with connect(database.uri) as client:
        context = database.context(client, task.run)
        assert not task.output_specs()[0].lost(context, task.grid()).any()


def test_ids_above_two_to_the_63_are_errors_and_change_no_row(database, make, tmp_path):
    volume = Volume.create(
        str(tmp_path / "big.zarr/ids"), shape=SHAPE, dtype="uint64", chunk_shape=(9, 11, 13), frame=FRAME
    )
    volume.write(volume.box, np.full(SHAPE, 2**63 + 5, np.uint64))
    synapses = make_synapses()
    database.fill(synapses)
    with pytest.raises(VolumeError, match=str(2**63 + 5)):
        here(make(labels=volume.path, lut=None).sites(), database)
    assert_same_rows(database.rows(), synapses.sorted())


def test_a_run_without_synapses_is_named_with_those_that_have_some(database, make):
    database.fill(make_synapses())
    with pytest.raises(ConfigError, match=r"no synapses of a run 'detcted'.*'detected'"):
        checked(make(synapses="detcted").sites(), database)


def test_two_runs_do_not_map_the_same_synapses(database, make):
    database.fill(make_synapses())
    with store_of(make().sites()) as store:
        store.create({"task": "map_sites", "config": {"synapses": RUN}}, epoch=1)
    with pytest.raises(RefusedError, match=r"mapped by the run 'mapped\.sites' already"):
        checked(make(run="other").sites(), database)


def test_an_unfinished_detection_is_refused(database, make):
    database.fill(make_synapses(), state="stopped")
    with pytest.raises(IncompleteInputError, match="is stopped"):
        run(make().sites())


def test_a_table_of_other_fragments_is_refused(inputs, make, tmp_path):
    other = str(tmp_path / "other")
    TableOutput("lut", other, attributes={"fragments": "abc"}).create(
        BlockGrid(FRAME, SHAPE, SHAPE), "of other"
    )
    with pytest.raises(ConfigError, match="made for fragments of another run"):
        check_task(make(lut=other).sites())
    with pytest.raises(ConfigError, match="no look-up table"):
        check_task(make(lut=str(tmp_path / "none")).sites())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels_are_segments": True}, "contradict each other"),
        ({"search_radius_nm": -1}, "search_radius_nm"),
        ({"synapses": ""}, "synapses"),
    ],
)
def test_a_config_that_makes_no_sense_is_an_error(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_a_radius_beyond_a_block_is_an_error(make):
    with pytest.raises(ConfigError, match="'search_radius_nm'"):
        check_task(make(search_radius_nm=100).sites())


def test_without_a_database_there_is_nothing_to_map(make, tmp_path):
    with pytest.raises(ConfigError, match="no database in"):
        check_task(make(db_host=None, run_dir=str(tmp_path / "nowhere")).sites())
