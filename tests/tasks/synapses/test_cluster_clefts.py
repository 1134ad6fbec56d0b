"""Clefts and the synapses that face them, whatever the blocks are."""

import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage

import mapping
from em_blocks.db.connect import connect
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.kernels.synapses.clefts import clefts_on_lines, connectors
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.runtime.runs.preflight import check_task
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.synapses.cluster_clefts import ClusterClefts
from em_blocks.volumes import Volume
from mapping import FRAME, RUN, SHAPE, assert_same_rows, here, make_synapses

LONGEST = 150.0
uri, database = mapping.uri, mapping.database


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    """Smooth noise: components of all sizes, many across blocks."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal(SHAPE), (0.6, 1.2, 1.2))
    values = np.clip(noise / noise.std() * 60 + 100, 0, 255).astype(np.uint8)
    folder = tmp_path_factory.mktemp("prediction")
    volume = Volume.create(
        str(folder / "p.zarr/clefts"), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=(4, 6, 5),
        attributes={"scale": 255},
    )
    volume.write(volume.box, values)
    return volume


@pytest.fixture
def make(prediction, database, tmp_path):
    def make(name="a", **options):
        return ClusterClefts.from_dict({
            "kind": "cluster_clefts", "run": "clustered", "run_dir": str(tmp_path / name),
            "synapses": RUN, "prediction": prediction.path, "threshold": 0.66,
            "output": str(tmp_path / name / "clefts.zarr/ids"), "max_distance_nm": LONGEST,
            "split_above": 40, "block_shape": (4, 8, 10), "chunk_shape": (4, 8, 10),
            **database.settings(), **options,
        })

    return make


def near_synapses(n=150):
    """Postsynaptic sites everywhere, the presynaptic ones some 60 nm away; a few outside."""
    rng = np.random.default_rng(4)
    post = make_synapses(n).post
    pre = post + rng.normal(0, (40, 30, 30), (n, 3))
    return Synapses(id=rng.permutation(n) * 3, pre=pre, post=post)


def expected(prediction, synapses):
    """One labelling of the whole volume, numbered by the largest and then by first voxels."""
    values = prediction.read(prediction.box)
    labels, n = ndimage.label(values >= 0.66 * 255, structure=np.ones((3, 3, 3)))
    largest = 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=n + 1)[1:]))
    others = [i for i in range(1, n + 1) if i != largest]
    names = np.zeros(n + 1, np.int64)
    names[largest], names[others] = 1, np.arange(2, n + 1)
    ids, rows = names[labels], synapses.sorted()
    ends = [as_voxels(end, voxel_size=FRAME.voxel_size, offset=FRAME.offset)
            for end in (rows.pre, rows.post)]
    inside = ((ends[0] >= 0) & (ends[0] < SHAPE)).all(axis=1) & (rows.distance <= LONGEST)
    cleft, score = np.full(len(rows), -1), np.full(len(rows), np.nan)
    lines = [np.floor(end[inside]).astype(int) for end in ends]
    found = clefts_on_lines(ids, values, *lines, corner=(0, 0, 0))
    cleft[inside], score[inside] = found.cleft, found.score / 255
    return ids, rows.replace(cleft=cleft, cleft_score=score)


def documents_of(database):
    with connect(database.uri) as client:
        found = client[database.name]["clefts"].find({"run": "clustered.connectors"})
        return {document["cleft"]: document for document in found}


def assert_clustered(prediction, database, task, synapses):
    ids, rows = expected(prediction, synapses)
    stored = Volume.open(task.output)
    np.testing.assert_array_equal(stored.read(stored.box), ids)
    assert_same_rows(database.rows(), rows)
    documents = documents_of(database)
    assert documents.keys() == set(rows.cleft[rows.cleft > 0].tolist())
    for cleft, document in documents.items():
        own = rows.select(rows.cleft == cleft)
        voxels = np.argwhere(ids == cleft)
        centroid = (voxels.mean(axis=0) + 0.5) * FRAME.voxel_size + FRAME.offset
        assert document["voxels"] == len(voxels) and document["synapses"] == len(own)
        np.testing.assert_allclose(document["centroid"], centroid)
        wanted = connectors(own.pre, centroid, split=len(voxels) > 40)
        positions = [connector["position"] for connector in document["connectors"]]
        np.testing.assert_array_equal(positions, own.pre[wanted.rows])
        members = [id for connector in document["connectors"] for id in connector["synapses"]]
        assert sorted(members) == own.id.tolist()


@pytest.mark.parametrize("block_shape", [SHAPE, (4, 8, 10), (3, 22, 7)])
def test_any_blocks_find_the_clefts_of_the_whole_volume(prediction, database, make, block_shape):
    synapses = near_synapses()
    database.fill(synapses)
    task = make(block_shape=block_shape, chunk_shape=block_shape)
    counts = [here(step, database) for step in task.steps()]
    assert_clustered(prediction, database, task, synapses)
    assert counts[3]["rows"] == 150 and counts[3]["not_followed"] > 0 < counts[3]["on_clefts"]
    two = [d for d in documents_of(database).values() if len(d["connectors"]) == 2]
    assert two and counts[4]["clefts"] > counts[4]["with_partners"] > 5
    assert all("cleft" in d for d in database.documents().values())  # null: could not be followed


def test_workers_do_all_steps_and_rows_stored_anew_are_clustered_again(prediction, database, make):
    synapses = near_synapses()
    database.fill(synapses)
    task = make(num_workers=2)
    reports = run_steps(task.steps(), console=Console(quiet=True))
    assert [report.ok for report in reports] == [True] * 5
    assert_clustered(prediction, database, task, synapses)
    with connect(database.uri) as client:
        database.store(client).replace_block("0/0/1", synapses.select([1, 4]))
    reports = run_steps(make().steps(), console=Console(quiet=True))
    assert [report.blocks["computed"] for report in reports][:3] == [0, 0, 0]
    assert 0 < reports[3].blocks["computed"] <= 2 and reports[4].blocks["computed"] == 1
    kept = np.isin(synapses.id, database.rows().id)
    assert_clustered(prediction, database, task, synapses.select(kept))


def test_a_prediction_without_scale_is_refused(make, tmp_path):
    volume = Volume.create(
        str(tmp_path / "p.zarr/plain"), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=SHAPE
    )
    volume.write(Box((0, 0, 0), SHAPE), np.zeros(SHAPE, np.uint8))
    with pytest.raises(ConfigError, match="without the attribute 'scale'"):
        check_task(make(prediction=volume.path).steps()[0])


def test_a_mask_would_cut_clefts(make, prediction):
    with pytest.raises(ConfigError, match="would cut clefts"):
        make(mask=prediction.path)
