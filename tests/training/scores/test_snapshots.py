"""Snapshots show a sample as the network saw it, and change nothing of the training."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from em_blocks.errors import VolumeError
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.models.config import SetupConfig
from em_blocks.models.setup import Setup
from em_blocks.models.truth import Truth
from em_blocks.training.data.samples import Sample
from em_blocks.training.run import TrainingRun
from em_blocks.training.scores.snapshots import KEPT, Snapshots
from em_blocks.training.session.interruption import Interruption
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses
from tiny_setup import synapse_config, tiny_config, write_setup, write_synapse_data

OFFSET = np.array([40.0, 16.0, 16.0])  # the context of the tiny network, nm
HEADS = {"indicator": 1, "direction_vectors": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_synapse_data(folder)
    return folder


def trained(folder, data, **training):
    values = synapse_config(data)
    values["training"] |= {"iterations": 4, "validate_every": 4, "checkpoint_every": 4, **training}
    values["network"]["kernels"][1] = [[3, 3, 3]]
    setup = Setup.from_folder(write_setup(folder, values))
    run = TrainingRun(setup, setup.folder, "a test", resume=False)
    with Interruption() as interruption:
        run.train(interruption, "")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    return trained(tmp_path_factory.mktemp("with") / "tiny", data, snapshot_every=2)


def volume(run, name, iteration=4):
    return Volume.open(f"{run.snapshots.folder}/{iteration}.zarr/{name}")


def test_a_training_with_snapshots_ends_with_the_same_weights(run, data, tmp_path):
    plain = trained(tmp_path / "tiny", data)
    assert run.snapshots.iterations() == [2, 4] and plain.snapshots.iterations() == []
    for name in ("best", "checkpoint_4"):
        one, two = (
            load_file(r.output / "checkpoints" / f"{name}.safetensors") for r in (run, plain)
        )
        assert all(bool((one[key] == two[key]).all()) for key in one | two)
    histories = [
        json.loads((r.output / "checkpoints" / "record.json").read_text())["history"]
        for r in (run, plain)
    ]
    assert histories[0] == histories[1]


def test_everything_lies_where_it_belongs_in_the_frame_of_raw(run):
    raw, labels = volume(run, "raw"), volume(run, "labels")
    assert (raw.shape, raw.frame.offset) == ((6, 24, 24), (0, 0, 0))
    for name in ("labels", *(f"{h}/{what}" for h in HEADS for what in ("target", "mask", "prediction"))):
        found = volume(run, name)
        assert found.shape == (4, 16, 16), name
        assert found.frame.voxel_size == (40, 4, 4)
        np.testing.assert_array_equal(found.frame.offset, OFFSET)
    assert labels.dtype == np.uint64 and labels.attributes["labels"]
    assert {h: volume(run, f"{h}/prediction").channels for h in HEADS} == HEADS


def test_targets_are_those_of_the_stored_sites(run):
    synapses = read_synapses(run.snapshots.folder / "4.zarr" / "synapses.parquet")
    labels = volume(run, "labels")
    values, geometry = labels.read(labels.box), {"voxel_size": (40, 4, 4), "offset": OFFSET}
    inside = np.all((synapses.post >= OFFSET) & (synapses.post < labels.roi.end), axis=1)
    assert inside.any(), "every sample of this training holds a site"
    # Balls of sites beyond the sample reach into it: what is painted is there, and perhaps more.
    marked = site_balls(values, synapses.post, radius_nm=12, **geometry)
    target = volume(run, "indicator/target")
    assert (target.read(target.box) >= marked).all() and marked.any()
    truth = partner_vectors(values, synapses.post, synapses.pre, radius_nm=20, **geometry)
    stored, mask = volume(run, "direction_vectors/target"), volume(run, "direction_vectors/mask")
    same = np.isclose(stored.read(stored.box), truth.vectors, atol=1e-3).all(axis=0)
    assert same[truth.mask > 0].mean() > 0.7
    assert (mask.read(mask.box) >= truth.mask).all()


def test_predictions_are_activated_and_in_the_units_of_the_head(run):
    shown = volume(run, "raw")
    predicted = run.trainer.predict(shown.read(shown.box)[None, None])
    for head in HEADS:  # the snapshot of the last iteration is of the last weights
        stored = volume(run, f"{head}/prediction")
        np.testing.assert_allclose(stored.read(stored.box), predicted[head][0], rtol=1e-5, atol=1e-5)
    assert predicted["indicator"].min() >= 0 and predicted["indicator"].max() <= 1


def test_a_picture_shows_raw_labels_and_every_head(run):
    pictures = sorted(path.name for path in run.snapshots.folder.glob("*.png"))
    assert pictures == ["2.png", "4.png"]
    image = np.asarray(Image.open(run.snapshots.folder / "4.png"))
    assert image.shape[0] > 3 * 384 and image.shape[1] > 2 * 384 and image.std() > 20


# -- files ---------------------------------------------------------------------------------


def snapshots(folder):
    return Snapshots(folder / "snapshots", SetupConfig.from_dict(tiny_config()))


def sample(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 5, (4, 16, 16)).astype(np.uint64)
    arrays = {
        "affinities/target": rng.integers(0, 2, (4, 4, 16, 16)).astype(np.uint8),
        "affinities/mask": np.ones((4, 4, 16, 16), np.uint8),
    }
    made = Sample(rng.random((6, 20, 20), np.float32), Truth((10, 10, 10), {"labels": labels}), arrays)
    return made, {"affinities": rng.random((4, 4, 16, 16), np.float32)}


def test_only_the_newest_snapshots_are_kept(tmp_path):
    made = snapshots(tmp_path)
    for iteration in range(8, 8 + KEPT + 2):
        made.write(iteration, *sample())
    assert made.iterations() == list(range(10, 8 + KEPT + 2))
    assert len(list(made.folder.iterdir())) == 2 * KEPT


def test_a_snapshot_of_the_same_iteration_replaces_the_older_one(tmp_path):
    made = snapshots(tmp_path)
    made.write(3, *sample(0))
    made.write(3, *sample(1))
    labels = Volume.open(f"{made.folder}/3.zarr/labels")
    np.testing.assert_array_equal(labels.read(labels.box), sample(1)[0].truth.labels["labels"])
    assert sorted(path.name for path in made.folder.iterdir()) == ["3.png", "3.zarr"]


def test_without_synapses_there_is_no_file_of_them(tmp_path):
    made = snapshots(tmp_path)
    made.write(3, *sample())
    assert not list(made.folder.rglob("*.parquet"))


def test_a_failed_snapshot_leaves_the_earlier_ones_and_nothing_else(tmp_path, monkeypatch):
    made = snapshots(tmp_path)
    made.write(3, *sample())

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(VolumeError, match=r"iteration 6 .* No space left .*snapshot_every to 0"):
        made.write(6, *sample())
    assert sorted(path.name for path in made.folder.iterdir()) == ["3.png", "3.zarr"]
