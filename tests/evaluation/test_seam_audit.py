"""Seams of segmentations of which it is known what is wrong with them."""

import json
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from em_blocks.cli.common import opened_store
from em_blocks.cli.main import main
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError
from em_blocks.evaluation.seam_audit import SeamAuditor, position_nm, rates, report, worst
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.segmentation.affinities import affinities as affinities_of
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.verify import requeue_damaged
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume

NEIGHBORHOOD = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], [0, -4, 0], [0, 0, -4]]
FRAME = Frame((40.0, 4.6, 4.6), (1000.0, 50.0, -23.0))
SHAPE, TILE = (8, 22, 28), (4, 12, 16)


def cells(shape=SHAPE, n=12, seed=0):
    """Connected objects that fill a volume, 1, 2, ..."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((n, 3)) * shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)[..., None, :]
    return (((grid - seeds) * (3, 1, 1)) ** 2).sum(axis=-1).argmin(axis=-1).astype(np.uint64) + 1


def write_affinities(folder, values):
    path = str(folder / "affinities.zarr/affinities")
    volume = Volume.create(
        path, shape=values.shape[1:], dtype=values.dtype, frame=FRAME, chunk_shape=values.shape[1:],
        channels=len(values), attributes={"neighborhood": NEIGHBORHOOD},
    )
    volume.write(volume.box, values)
    return path


def perfect(labels):
    joined, _ = affinities_of(labels, NEIGHBORHOOD)
    return joined.astype(np.float32)


def noisy(seed, shape=SHAPE):
    """Affinities of all sizes, smooth enough that fragments are more than a voxel."""
    values = np.random.default_rng(seed).random((len(NEIGHBORHOOD), *shape))
    values = gaussian_filter(values, (0, 0.5, 1, 1))
    values -= values.min()
    return (values / values.max()).astype(np.float32)


def make_config(folder, **options):
    return {
        "kind": "segment", "run": "audited", "affinities": str(folder / "affinities.zarr/affinities"),
        "output": str(folder / "out.zarr"), "block_shape": TILE, "chunk_shape": TILE,
        "context": [2, 4, 4], "fragments": {"method": "watershed", "low": 0.0, "small": 8},
        "thresholds": [0.5], **options,
    }


def segment_here(config):
    """All steps, block by block, in this process and without a database."""
    for step in config.steps():
        for spec in step.output_specs():
            spec.create(step.grid(), "f" * 64)
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                process(block, BlockReport())


@pytest.fixture(scope="module")
def cells_auditor(tmp_path_factory):
    """Of a perfect segmentation of known cells."""
    folder = tmp_path_factory.mktemp("cells")
    write_affinities(folder, perfect(cells()))
    config = Segment.from_dict(make_config(folder))
    segment_here(config)
    auditor = SeamAuditor(config, 0.5)
    auditor.seamless = cache(auditor.seamless)  # does not depend on what the tests change
    return auditor


@pytest.fixture
def auditor(cells_auditor):
    """The same for every test: what one of them changed is put back."""
    box = cells_auditor.stored.box
    before = cells_auditor.stored.read(box)
    yield cells_auditor
    Volume.open(cells_auditor.stored.path, mode="r+").write(box, before)


def change(auditor, function):
    """Replace the stored segments by `function` of them."""
    volume = Volume.open(auditor.stored.path, mode="r+")
    volume.write(volume.box, function(volume.read(volume.box)))


def all_samples(auditor, n=1000):
    return list(auditor.samples(n, seed=1))


def test_perfect_affinities_leave_no_seam(auditor):
    samples = all_samples(auditor)
    assert len(samples) == 3 * 4  # faces between 2 x 2 x 2 tiles
    for found in rates(samples).values():
        assert found.seam.value == found.control.value == 0
    assert not worst(samples)
    assert sum(s.at_seam.joined for s in samples) > sum(s.at_seam.apart for s in samples) > 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_face_whose_objects_were_not_joined_is_found(auditor, axis):
    plane = TILE[axis]

    def damaged(segments):
        segments = segments.copy()
        segments[(slice(None),) * axis + (slice(plane, None),)] += np.uint64(10**6)
        return segments

    change(auditor, damaged)
    samples = all_samples(auditor)
    found = worst(samples)
    here = [s for s in samples if s.seam.axis == axis and s.seam.plane == plane]
    assert {id(s) for s in found} == {id(s) for s in here if s.at_seam.joined}
    for sample in here:
        assert sample.at_seam.split == sample.at_seam.joined and sample.at_seam.merged == 0
        position = position_nm(auditor, sample.seam)[axis]
        assert position == pytest.approx(FRAME.offset[axis] + plane * FRAME.voxel_size[axis])
    result = rates(samples)
    assert result["split_by_the_seam"].cost.value > 0.05 and result["voi_split"].cost.value > 0
    assert result["merged_by_the_seam"].seam.value == 0
    assert result["disagreement"].control.value == 0


def test_objects_that_were_wrongly_joined_are_found(auditor):
    change(auditor, np.ones_like)
    samples = all_samples(auditor)
    assert sum(s.at_seam.merged for s in samples) == sum(s.at_seam.apart for s in samples) > 0
    found = rates(samples)
    assert found["merged_by_the_seam"].seam.value == found["merged_by_the_seam"].control.value == 1
    assert found["voi_merge"].seam.value > 0 == found["voi_split"].seam.value


def test_samples_are_drawn_by_the_seed_each_seam_once(auditor):
    seams = [[s.seam for s in auditor.samples(3, seed=seed)] for seed in (5, 5, 6)]
    assert seams[0] == seams[1] != seams[2]
    assert len(set(seams[0])) == 3
    text = json.dumps(report(auditor, list(auditor.samples(2, seed=5))), allow_nan=False)
    assert json.loads(text)["samples"] == 2


def test_seams_with_nothing_around_them_are_left_out(auditor):
    change(auditor, lambda segments: segments * (np.arange(SHAPE[2]) < TILE[2] // 2))
    assert {s.seam.axis for s in all_samples(auditor)} == {0, 1}
    change(auditor, np.zeros_like)
    assert not all_samples(auditor)


@pytest.mark.parametrize("tile", [SHAPE, (2, *SHAPE[1:])])
def test_a_volume_without_seams_is_refused(tmp_path, tile):
    write_affinities(tmp_path, perfect(cells()))
    config = Segment.from_dict(make_config(tmp_path, block_shape=tile, chunk_shape=tile))
    segment_here(config)
    with pytest.raises(ConfigError, match="no seam"):
        all_samples(SeamAuditor(config, 0.5))


OPTIONS = {
    "watershed": {},
    "sections": {"fragments": {"method": "watershed", "dimensions": 2, "long_range_weight": 0.5}},
    "mutex": {"fragments": {"method": "mutex_watershed", "strides": [1, 2, 2]}, "min_size": 5},
    "few edges": {"edges": {"long_range_weight": 0.25}, "min_mean_affinity": 0.45},
    "quantile": {"edges": {"scores": "quantile", "quantile": 0.75}},
    "waterz": {"edges": {"scores": "waterz_quantile"}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_window_is_segmented_as_the_steps_do_it(tmp_path, options):
    """Where the whole volume is one tile, the window is that tile."""
    write_affinities(tmp_path, noisy(2))
    mask = Volume.create(str(tmp_path / "mask.zarr"), shape=(3, 3, 4), dtype="uint8",
                         frame=Frame((160.0, 46.0, 46.0), FRAME.offset), chunk_shape=(3, 3, 4))
    mask.write(mask.box, (np.indices(mask.shape).sum(axis=0) > 1).astype(np.uint8))
    config = Segment.from_dict(make_config(
        tmp_path, block_shape=SHAPE, chunk_shape=SHAPE, mask=mask.path, **options
    ))
    segment_here(config)
    auditor = SeamAuditor(config, 0.5)
    box = auditor.stored.box
    table = count_overlaps(segmentation=auditor.stored.read(box), truth=auditor.seamless(box))
    assert len(table) == len(set(table.segmentation)) == len(set(table.truth)) > 5
    assert 0 in table.truth and table.voxels[table.truth == 0] == table.voxels[
        table.segmentation == 0
    ]


def test_a_window_lies_where_its_mask_does(tmp_path):
    write_affinities(tmp_path, perfect(cells()))
    mask = Volume.create(str(tmp_path / "mask.zarr"), shape=(4, 11, 14), dtype="uint8",
                         frame=Frame((80.0, 9.2, 9.2), FRAME.offset), chunk_shape=(4, 11, 14))
    mask.write(mask.box, np.random.default_rng(6).integers(0, 2, mask.shape).astype(np.uint8))
    config = Segment.from_dict(make_config(tmp_path, mask=mask.path))
    segment_here(config)
    auditor = SeamAuditor(config, 0.5)
    for box in (Box((3, 5, 7), (4, 8, 6)), Box((5, 13, 19), (3, 9, 9))):
        stored = auditor.stored.read(box)
        assert 0.2 < (stored > 0).mean() < 0.8
        np.testing.assert_array_equal(stored == 0, auditor.seamless(box) == 0)


def test_noise_costs_more_at_seams_than_within_tiles(tmp_path):
    write_affinities(tmp_path, noisy(3, (16, 48, 64)))
    config = Segment.from_dict(make_config(tmp_path, thresholds=[0.45]))
    segment_here(config)
    found = rates(all_samples(SeamAuditor(config, 0.45), 20))["disagreement"]
    assert found.cost.value > 2 * found.cost.error


# -- as typed -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The config file of a run that is done."""
    folder = tmp_path_factory.mktemp("audit")
    write_affinities(folder, perfect(cells()))
    path = folder / "segment.json"
    path.write_text(json.dumps(make_config(folder)))
    steps = Segment.from_file(path).steps()
    assert all(r.ok for r in run_steps(steps, console=Console(quiet=True)))
    return path


def call(*arguments):
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


def files(folder):
    return {p for p in folder.rglob("*") if "db" not in p.relative_to(folder).parts}


def test_the_verb_reports_and_writes_only_what_it_is_told(done, tmp_path):
    before = files(done.parent)
    shown = call(done, "--samples", 6)
    assert shown.exit_code == 0, shown.output
    assert "cost of cutting" in shown.output and "0.000 +- 0.000" in shown.output
    picture = tmp_path / "seam.png"
    result = call(done, "--samples", 6, "--seed", 3, "--json", "--picture", picture)
    found = json.loads(result.stdout)
    assert found["samples"] == 6 and found["seam"]["split"] == 0 and found["worst"] == []
    assert found["rates"]["disagreement"]["cost"] == {"value": 0.0, "error": 0.0}
    with Image.open(picture) as opened:
        assert opened.width > 3 * 384
    assert files(done.parent) == before


def refused(*arguments):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_other_settings_are_refused(done):
    message = refused(done, "--set", "context=[1,1,1]")
    assert "was made with other settings" in message and "context" in message


def test_a_threshold_that_was_not_run_is_refused(done):
    assert "has no run 'audited.lut" in refused(done, "--threshold", 0.7)
    assert "--threshold" in refused(done, "--set", "thresholds=[0.5, 0.7]")


def test_what_was_not_finished_is_refused(tmp_path):
    write_affinities(tmp_path, perfect(cells()))
    path = tmp_path / "segment.json"
    path.write_text(json.dumps(make_config(tmp_path)))
    assert "never started" in refused(path)
    run_steps(Segment.from_file(path).steps()[:1], console=Console(quiet=True))
    assert "has no run 'audited.edges'" in refused(path)


def test_a_block_that_is_due_again_is_refused(done):
    (step, *_) = Segment.from_file(done).steps()
    with opened_store(step) as store:
        requeue_damaged(store, step.grid().block((0, 0, 0)), "lost")
        try:
            assert "1 of 8 blocks are not done" in refused(done)
        finally:
            store.blocks.update_one({"_id": f"{step.run}/0/0/0"}, {"$set": {"state": DONE}})
