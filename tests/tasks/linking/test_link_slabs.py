"""Slabs as one volume: equal to a slow reference, for every order, every cut and every block grid."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import ndimage

from blockwise import store_of, stored_files, wait_for
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.outputs import RunContext
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.linking.link_slabs import LinkSlabs
from em_blocks.tasks.places import check_places
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

VOXEL = (40.0, 4.6, 4.6)
CORNER = (400.0, 46.0, -9.2)
SHAPE = (20, 31, 45)
SHAPES = [(5, 16, 16), (10, 32, 8), (5, 8, 48), (20, 32, 48)]


def tissue(shape=SHAPE, seed=0):
    """Thick noise of a few classes, of which every slab labels the components for itself."""
    noise = np.random.default_rng(seed).random((3, *shape))
    return np.stack([ndimage.gaussian_filter(n, 1.6, mode="wrap") for n in noise]).argmax(axis=0)


def labelled(values, seed=0, dtype="uint32"):
    """Components of the classes but 0, with ids that no other slab knows how to read."""
    found = np.zeros(values.shape, np.int64)
    for kind in (1, 2):
        numbers, _ = ndimage.label(values == kind)
        found[numbers > 0] = 2 * numbers[numbers > 0] + kind
    ids = np.random.default_rng(seed).permutation(np.arange(1, found.max() + 1)) * 3
    return np.concatenate([[0], ids])[found].astype(dtype)


def slab(folder, name, values, begin, **options):
    """A slab whose first voxel is `begin` voxels (z, y, x) behind the corner of the whole."""
    offset = tuple(c + b * v for c, b, v in zip(CORNER, begin, VOXEL, strict=True))
    made = Volume.create(
        str(folder / f"{name}.zarr/seg"), shape=values.shape, dtype=values.dtype,
        frame=Frame(VOXEL, offset), chunk_shape=(7, 8, 9), **options,
    )
    made.write(made.box, values)
    return made.path


def cut(values, *ends):
    """Boxes of a volume between these ends along z, y and x."""
    sides = [list(itertools.pairwise((0, *inner, n))) for inner, n in
             zip(ends, values.shape, strict=True)]
    return [Box.between(*zip(*sides, strict=True)) for sides in itertools.product(*sides)]


def slabs(folder, values, boxes):
    """Label and store every box for itself; return ids by box, and paths."""
    ids = [labelled(values[box.slices], seed) for seed, box in enumerate(boxes)]
    return ids, [slab(folder, f"s{n}", found, box.offset)
                 for n, (found, box) in enumerate(zip(ids, boxes, strict=True))]


def linking(paths, folder, name="a", **options):
    return LinkSlabs.from_dict({
        "kind": "link_slabs", "run": "all", "slabs": paths, "chunk_shape": [5, 8, 8],
        "output": str(folder / name / "o.zarr/linked"), "block_shape": [10, 16, 16], **options,
    })


def slow_links(ids, boxes, threshold=0.2):
    """All faces between two boxes, all pairs of ids by masks: I / (A + B)."""
    links = []
    for (m, low), (n, high) in itertools.permutations(enumerate(boxes), 2):
        for axis in range(3):
            step = np.eye(3, dtype=int)[axis]
            face = low.intersect(high.shift(tuple(-step)))
            if face.size:
                a = ids[m][face.relative_to(low).slices]
                b = ids[n][face.shift(tuple(step)).relative_to(high).slices]
                links += [
                    ((m, i), (n, j)) for i in np.unique(a[a > 0]) for j in np.unique(b[b > 0])
                    if ((a == i) & (b == j)).sum() >= threshold * ((a == i).sum() + (b == j).sum())
                ]
    return links


def slow_linked(ids, boxes, shape=SHAPE, threshold=0.2):
    """Objects by merging one link after the other; numbered by slab and id."""
    nodes = [(n, i) for n, found in enumerate(ids) for i in np.unique(found[found > 0])]
    name = {node: node for node in nodes}
    for a, b in slow_links(ids, boxes, threshold):
        old, new = max(name[a], name[b]), min(name[a], name[b])
        name = {node: new if group == old else group for node, group in name.items()}
    number = {group: n for n, group in enumerate(sorted(set(name.values())), start=1)}
    result = np.zeros(shape, np.uint64)
    for n, (found, box) in enumerate(zip(ids, boxes, strict=True)):
        for i in np.unique(found[found > 0]):
            result[box.slices][found == i] = number[name[n, i]]
    return result


def done(task):
    """All steps, without database and workers; the volume that comes out and what was counted."""
    counts = {}
    for step in task.steps():
        step.check()
        step.check_alignment()
        for spec in step.output_specs():
            spec.create(step.grid(), "fingerprint")
        for name, n in do_all(step):
            counts[name] = counts.get(name, 0) + n
    task.publish()
    return Volume.open(task.output), counts


def do_all(step):
    """Do all blocks of a step; return what each counted."""
    counts = []
    with step.open(RunContext()) as process:
        for block in step.grid().blocks():
            process(block, report := BlockReport())
            counts += report.counts.items()
    return counts


def values_of(volume):
    return volume.read(volume.box)


# -- what comes out -------------------------------------------------------------------------


CUTS = {
    "two slabs": ((9,), (), ()), "six slabs": ((3, 7, 8, 13, 17), (), ()),
    "a grid": ((11,), (8, 16), (30,)),
}


@pytest.mark.parametrize("ends", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("seed", range(2))
def test_it_agrees_with_one_link_after_the_other(tmp_path, ends, seed):
    values = tissue(seed=seed)
    boxes = cut(values, *ends)
    ids, paths = slabs(tmp_path, values, boxes)
    made, counts = done(linking(paths, tmp_path, criterion="sum", threshold=0.2))
    expected = slow_linked(ids, boxes)
    np.testing.assert_array_equal(values_of(made), expected)
    assert made.dtype == np.uint64 and made.frame == Frame(VOXEL, CORNER)
    assert counts["objects"] == expected.max() == len(np.unique(expected)) - 1
    assert counts["links"] == len(slow_links(ids, boxes)) > 0
    assert counts["labels"] == sum(len(np.unique(found)) - 1 for found in ids)


@pytest.mark.parametrize("block_shape", SHAPES)
def test_nothing_depends_on_the_blocks_nor_on_the_order_of_slabs(tmp_path, block_shape):
    values = tissue(seed=3)
    boxes = cut(values, (3, 7, 8, 13, 17), (), ())
    ids, paths = slabs(tmp_path, values, boxes)
    expected = slow_linked(ids, boxes)
    for name, order in (("a", paths), ("b", paths[::-1]), ("c", paths[3:] + paths[:3])):
        made, _ = done(linking(order, tmp_path, name, block_shape=block_shape))
        np.testing.assert_array_equal(values_of(made), expected)


def test_another_order_of_slabs_is_the_same_run(tmp_path):
    values = tissue()
    _, paths = slabs(tmp_path, values, cut(values, (9,), (), ()))
    first, second = (linking(order, tmp_path).steps() for order in (paths, paths[::-1]))
    assert [step.identity() for step in first] == [step.identity() for step in second]


def test_pieces_of_one_volume_are_linked_like_slabs(tmp_path):
    """Blocks that another program labelled for themselves: the last ones are smaller."""
    values = tissue(seed=5)
    boxes = cut(values, (8, 16), (12, 24), (20, 40))
    ids = [labelled(values[box.slices], seed) for seed, box in enumerate(boxes)]
    whole = np.zeros(SHAPE, "uint32")
    for found, box in zip(ids, boxes, strict=True):
        whole[box.slices] = found
    made, _ = done(linking([slab(tmp_path, "whole", whole, (0, 0, 0))], tmp_path, cut=[8, 12, 20]))
    np.testing.assert_array_equal(values_of(made), slow_linked(ids, boxes))


def stack(folder, *planes):
    """Slabs of two equal sections each, one behind the other."""
    return [slab(folder, f"p{n}", np.stack([plane, plane]), (2 * n, 0, 0))
            for n, plane in enumerate(planes)]


def row(*runs):
    """A section of 1000 voxels: (id, voxels) from left to right."""
    ids = np.repeat([i for i, _ in runs], [n for _, n in runs])
    assert len(ids) == 1000
    return ids.reshape(20, 50).astype("uint16")


def plain(folder, *planes, **options):
    """The ids of the section of every slab, as sets of (id before, object); and the counts."""
    task = linking(stack(folder, *planes), folder, block_shape=[20, 24, 56], **options)
    made, counts = done(task)
    found = values_of(made)[::2]
    return [
        {(int(i), int(j)) for i, j in zip(plane.ravel(), objects.ravel(), strict=True) if i}
        for plane, objects in zip(planes, found, strict=True)
    ], counts


def area(i, n, begin=0):
    return row((0, begin), (i, n), (0, 1000 - n - begin))


@pytest.mark.parametrize(("shared", "linked"), [(199, False), (200, True)])
@pytest.mark.parametrize(("criterion", "threshold"), [("sum", 0.2), ("iou", 0.25), ("dice", 0.4)])
def test_known_overlaps_around_the_limit(tmp_path, shared, linked, criterion, threshold):
    """I / (A + B) is 0.199 or 0.200."""
    (low, high), counts = plain(
        tmp_path, area(7, 500), area(9, 500, 500 - shared), criterion=criterion, threshold=threshold
    )
    assert low == {(7, 1)} and high == {(9, 1 if linked else 2)}
    assert counts["links"] == linked and counts["ends"] == counts["starts"] == (not linked)


def test_one_object_that_goes_on_as_two_is_one_object(tmp_path):
    (low, high), counts = plain(tmp_path, area(7, 1000), row((3, 600), (4, 400)))
    assert low == {(7, 1)} and high == {(3, 1), (4, 1)}
    assert (counts["links"], counts["splits"], counts["merges"]) == (2, 1, 0)


def test_two_objects_that_go_on_as_one_are_one_object(tmp_path):
    (low, high), counts = plain(tmp_path, row((3, 600), (4, 400)), area(7, 1000))
    assert low == {(3, 1), (4, 1)} and high == {(7, 1)}
    assert (counts["links"], counts["splits"], counts["merges"]) == (2, 0, 1)


def test_with_mutual_best_only_the_larger_part_goes_on(tmp_path):
    (low, high), counts = plain(
        tmp_path, area(7, 1000), row((3, 600), (4, 400)), mutual_best=True
    )
    assert low == {(7, 1)} and high == {(3, 1), (4, 2)}
    assert (counts["links"], counts["splits"], counts["ends"], counts["starts"]) == (1, 0, 0, 1)


def test_a_chain_over_six_slabs_is_one_object_although_its_ends_share_nothing(tmp_path):
    """It moves by a third of its width from slab to slab; one of another id stays where it is."""
    planes = [
        row((0, 100 * n), (50 - n, 300), (0, 600 - 100 * n), (n + 1, 100)) for n in range(6)
    ]
    found, counts = plain(tmp_path, *planes)
    objects = [dict(slab) for slab in found]
    assert [slab[50 - n] for n, slab in enumerate(objects)] == [2] * 6
    assert [slab[n + 1] for n, slab in enumerate(objects)] == [1] * 6
    assert (counts["links"], counts["objects"], counts["ends"]) == (10, 2, 0)


def test_equal_ids_of_two_slabs_are_not_one_object_for_that(tmp_path):
    (low, high), _ = plain(tmp_path, area(7, 400), area(7, 400, 500))
    assert low == {(7, 1)} and high == {(7, 2)}


def test_ids_of_63_bits_and_slabs_without_any_are_linked(tmp_path):
    large = 2**63 - 1
    planes = [np.where(area(1, 500) > 0, np.uint64(large), np.uint64(0)), area(0, 1000), area(5, 500)]
    found, counts = plain(tmp_path, *planes)
    assert found == [{(large, 1)}, set(), {(5, 2)}]
    assert (counts["links"], counts["ends"], counts["starts"]) == (0, 1, 1)


# -- the trace report -----------------------------------------------------------------------


def test_the_trace_report_has_every_face_and_every_pair(tmp_path):
    planes = [row((3, 600), (4, 400)), area(7, 1000), row((7, 100), (0, 900))]
    task = linking(stack(tmp_path, *planes), tmp_path)
    done(task)
    report = json.loads((task.home / "all.trace.json").read_text())
    assert report["criterion"] == "iou" and report["threshold"] == 0.25
    assert report["total"] == {"links": 2, "splits": 0, "merges": 1, "ends": 1, "starts": 1}
    assert [(slab["number"], slab["offset_nm"][0]) for slab in report["slabs"]] == [
        (0, 400.0), (1, 480.0), (2, 560.0)
    ]
    assert report["slabs"][1]["path"].endswith("p1.zarr/seg")
    assert report["faces"][1] == {
        "low": 1, "high": 2, "axis": "z", "links": 0, "splits": 0, "merges": 0, "ends": 1, "starts": 1,
        "position_nm": 560.0,
    }
    rows = list(csv.DictReader((task.home / "all.links.csv").read_text().splitlines()))
    assert rows[0] == {
        "low": "0", "high": "1", "a": "3", "b": "7", "shared": "600", "area_a": "600",
        "area_b": "1000", "score": "0.6", "linked": "1", "object_a": "1", "object_b": "1", "axis": "z",
    }
    assert [(row["a"], row["b"], row["linked"]) for row in rows] == [
        ("3", "7", "1"), ("4", "7", "1"), ("7", "7", "0")
    ]
    assert pq.read_table(task.home / "all.links.parquet").column("shared").to_pylist() == [600, 400, 100]


# -- the laws of blockwise tasks ------------------------------------------------------------


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six slabs and the undisturbed result."""
    folder = tmp_path_factory.mktemp("six")
    values = tissue(seed=3)
    boxes = cut(values, (3, 7, 8, 13, 17), (), ())
    ids, paths = slabs(folder, values, boxes)
    task = linking(paths, folder)
    assert all(report.ok for report in run_config(task, console=Console(quiet=True)))
    return paths, task, slow_linked(ids, boxes)


def tables_of(task):
    return {p.relative_to(task.home): p.read_bytes() for p in (task.home / "tables").rglob("*.parquet")}


def test_blocks_done_again_on_workers_change_nothing(six, tmp_path):
    paths, undisturbed, expected = six
    task = linking(paths, tmp_path, num_workers=2)
    assert all(report.ok for report in run_config(task, console=Console(quiet=True)))
    np.testing.assert_array_equal(values_of(Volume.open(task.output)), expected)
    with store_of(task.steps()[-1]) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_config(task, console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert stored_files(task.steps()[-1]) == stored_files(undisturbed.steps()[-1])
    assert tables_of(task) == tables_of(undisturbed)
    assert len(tables_of(task)) == 2 * 12 + 6 + 2  # ids and faces by blocks; objects by slabs


@pytest.mark.parametrize("moment", ["tables/all/faces/ids/?/**/*", "o.zarr/linked/?/**/*"])
def test_killed_anywhere_equals_undisturbed(six, tmp_path, moment):
    """kill -9 of command and workers; then the command is repeated."""
    paths, undisturbed, _ = six
    task = linking(paths, tmp_path)
    config = tmp_path / "link.json"
    config.write_text(task.model_dump_json(exclude={"run_dir"}))
    command = [sys.executable, "-c", "from em_blocks.cli.main import main; main()", "link-slabs",
               str(config)]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: any((tmp_path / "a").glob(moment)), timeout_s=60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "splits: " in again.stdout and "all.trace.json" in again.stdout
    assert stored_files(task.steps()[-1]) == stored_files(undisturbed.steps()[-1])
    assert tables_of(task) == tables_of(undisturbed)


def test_changed_slabs_are_noticed(six, tmp_path):
    """A table that another segmentation made does not fit."""
    values = tissue()
    _, paths = slabs(tmp_path, values, cut(values, (9,), (), ()))
    task = linking(paths, tmp_path)
    done(task)
    find, link, relabel = task.steps()
    tables = BlockTables(f"{link.tables}/ids")
    for block in find.grid().blocks():
        rows = tables.read(block.key)
        tables.write(block.key, rows | {"id": rows["id"] + 1})
    with pytest.raises(VolumeError, match="run the command again with --overwrite"):
        do_all(link)
    lut = BlockTables(relabel.objects)
    lut.write("1/0/0", {name: values[1:] for name, values in lut.read("1/0/0").items()})
    with pytest.raises(VolumeError, match=r"1 ids.*not in the look-up table"):
        do_all(relabel)


# -- what is refused ------------------------------------------------------------------------


def check_all(task):
    for step in task.steps():
        step.check()
        check_places(step)


def refused(folder, paths, words, **options):
    task = linking(paths, folder, **options)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError, match=words):
        check_all(task)
    assert sorted(folder.rglob("*")) == before


def pair(folder, second=(2, 0, 0), **options):
    values = np.ones((2, 20, 50), options.pop("dtype", "uint16"))
    return [slab(folder, "first", np.ones((2, 20, 50), "uint16"), (0, 0, 0)),
            slab(folder, "second", values[:, :options.pop("rows", 20)], second, **options)]


@pytest.mark.parametrize(
    ("second", "options", "words"),
    [
        ((3, 0, 0), {}, r"do not abut: .*first.zarr/seg ends at z = 480 nm, but .*second.zarr/seg "
         "begins at 520 nm, 1 voxels later. They fill 4000 of the 5000 voxels"),
        ((1, 0, 0), {}, r"overlap: both hold the region at \(440.0, 46.0, -9.2\) nm, \(1, 20, 50\)"),
        ((0, 0, 0), {}, "overlap"),
        ((2, 0, 0), {"rows": 19}, r"do not abut: .*first.zarr/seg covers \(20, 50\) voxels \(y, x\)"),
        ((2, 1, 0), {}, r"from \(0, 0\) on, .*from \(1, 0\) on"),
        ((2, 0.5, 0), {}, "does not lie on the voxels of the others"),
        ((2, 0, 0), {"dtype": "float32"}, "second.zarr/seg holds float32, but one integer id"),
    ],
)
def test_slabs_that_do_not_fit_are_refused(tmp_path, second, options, words):
    refused(tmp_path, pair(tmp_path, second, **options), words)


def test_a_slab_that_is_missing_in_a_grid_is_refused(tmp_path):
    values = tissue()
    _, paths = slabs(tmp_path, values, cut(values, (9,), (), (20,)))
    refused(tmp_path, paths[:3], "do not abut: .*They fill")


def test_slabs_of_other_voxels_are_refused(tmp_path):
    first, second = pair(tmp_path)
    wrong = {"path": second, "voxel_size": [40, 4.6, 4.7]}
    refused(tmp_path, [first, wrong], "different voxels: .*4.7.* correct it")


def test_a_place_that_the_config_says_wins(tmp_path):
    first, second = pair(tmp_path, (7, 0, 0))
    made, counts = done(linking([first, {"path": second, "offset": [480, 46, -9.2]}], tmp_path))
    assert made.shape == (4, 20, 50) and counts["links"] == 1


def test_negative_and_larger_ids_are_found_before_any_block_starts(tmp_path):
    first = slab(tmp_path, "f", np.ones((2, 20, 50), "int32"), (0, 0, 0))
    negative = np.ones((2, 20, 50), "int32")
    negative[1, 3, 4] = -5
    refused(tmp_path, [first, slab(tmp_path, "n", negative, (2, 0, 0))],
            r"n.zarr/seg holds the id -5 at voxel \(1, 3, 4\)")
    large = np.full((2, 20, 50), 2**63, "uint64")
    refused(tmp_path, [first, slab(tmp_path, "l", large, (2, 0, 0))], "below 2\\^63")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slabs": ["a.zarr/x"]}, "one slab has no face to link"),
        ({"slabs": []}, "'slabs'"),
        ({"threshold": 0}, "'threshold': got 0"),
        ({"threshold": 1.5}, "'threshold': got 1.5"),
        ({"criterion": "jaccard"}, "'criterion': got 'jaccard'"),
        ({"output": "b.zarr/x"}, "lie in each other"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        linking(["a.zarr/x", "b.zarr/x"], tmp_path, **options)


def test_a_mask_is_refused(tmp_path):
    paths = pair(tmp_path)
    refused(tmp_path, paths, "'mask' cannot be used", mask=paths[0])
