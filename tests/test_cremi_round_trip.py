"""Scores of em_blocks are those of the CREMI challenge: partners in its files, and neurons."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from cremi_scorer import (
    adapted_rand_error,
    away_from_borders,
    fscore,
    variation_of_information,
)
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.volumes.synapse_files import write_synapses
from em_blocks.volumes.synapse_files.cremi import CremiVolume

FRAME = Frame((40.0, 4.6, 4.6), (1520.0, 3644.2, -46.0))


@pytest.fixture(scope="module")
def made():
    """A generated volume whose first corner is not the origin of the world."""
    return phantom((12, 160, 160), voxel_size=FRAME.voxel_size, seed=11, synapses_per_um3=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made):
    """Truth, neurons, and predictions: true sites a little off, on faces of voxels too."""
    folder = tmp_path_factory.mktemp("cremi")
    truth = made.synapses.replace(
        pre=made.synapses.pre + FRAME.offset, post=made.synapses.post + FRAME.offset
    )
    rng = np.random.default_rng(3)
    moved = {
        side: _on_half_voxels(getattr(truth, side) + rng.normal(0, 25, (len(truth), 3)))
        for side in ("pre", "post")
    }
    found = truth.replace(**moved).select(rng.random(len(truth)) < 0.9)
    placed = {"voxel_size": FRAME.voxel_size, "offset": FRAME.offset}
    write_synapses(
        folder / "truth.hdf", truth, volumes={"neuron_ids": CremiVolume(made.neurons, FRAME)}
    )
    write_synapses(folder / "found.hdf", found, **placed)
    write_synapses(folder / "truth.parquet", truth)
    write_synapses(folder / "found.parquet", found)
    return folder


def _on_half_voxels(sites):
    """Sites at middles and faces of voxels, as vectors of 4 nm in voxels of 40 nm lead to them."""
    return FRAME.offset + np.rint((sites - FRAME.offset) / FRAME.voxel_size * 2) / 2 * FRAME.voxel_size


def own_fscore(folder: Path, ending: str) -> float:
    config = {
        "kind": "evaluate_synapses", "truth": f"truth.{ending}", "prediction": f"found.{ending}",
        "neurons": "truth.hdf:volumes/labels/neuron_ids",
    }
    (folder / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(main, ["evaluate", "synapses", str(folder / "config.json"), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["fscore"]


@pytest.mark.parametrize("rounded", [None, round], ids=["Python 2", "Python 3"])
def test_the_scorer_of_the_challenge_gives_our_own_score(folder, rounded):
    truth = folder / "truth.hdf"
    expected = fscore(folder / "found.hdf", truth, truth, rounded)
    assert 0.3 < expected < 0.9  # some links are in the right neurons, some are not
    assert own_fscore(folder, "hdf") == expected
    assert own_fscore(folder, "parquet") == expected


def test_files_of_others_get_their_score(folder, tmp_path):
    """Locations that are indices times 40 nm are in the section of that index, not before it."""
    with h5py.File(folder / "found.hdf") as file:
        located = file["annotations/locations"][:]
    for name in ("truth", "found"):
        (tmp_path / f"{name}.hdf").write_bytes((folder / f"{name}.hdf").read_bytes())
    shifted = located - np.array(FRAME.offset)
    whole = FRAME.offset + np.rint(shifted / FRAME.voxel_size) * FRAME.voxel_size
    with h5py.File(tmp_path / "found.hdf", "a") as file:
        del file["annotations"].attrs["resolution"]
        file["annotations/locations"][:] = whole - (100.0, 200.0, 300.0)
        file["annotations"].attrs["offset"] = (100.0, 200.0, 300.0)
    truth = tmp_path / "truth.hdf"
    assert own_fscore(tmp_path, "hdf") == fscore(tmp_path / "found.hdf", truth, truth) > 0.3


@pytest.mark.parametrize("border_nm", [None, 9.2, 25.0])
def test_neurons_are_scored_as_the_challenge_does_with_its_border_threshold(tmp_path, made, border_nm):
    """Truth that is not known is 2^64 - 1, the segmentation has background and mistakes."""
    truth = made.neurons.astype(np.uint64)
    truth[:, :20] = 2**64 - 1
    rng = np.random.default_rng(2)
    splits = rng.integers(0, 2, len(truth))[:, None, None]
    segmentation = np.where(truth % 3 == 0, 0, truth % 50 + splits)
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        for name, labels in (("truth", truth), ("found", segmentation.astype(np.uint64))):
            file[name] = labels
            file[name].attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    border = () if border_nm is None else ("--border-nm", str(border_nm))
    result = CliRunner().invoke(main, [
        "evaluate", "segmentation", "--segmentation", f"{tmp_path}/a.hdf:found",
        "--truth", f"{tmp_path}/a.hdf:truth", "--ignore", "-1", *border, "--json",
    ])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    known = truth != 2**64 - 1
    if border_nm is not None:
        known &= away_from_borders(truth, border_nm / FRAME.voxel_size[1])
    assert found["voxels"] == known.sum() > 10_000
    error = adapted_rand_error(segmentation, truth, known)
    assert found["arand_cremi"] == pytest.approx(error, abs=1e-9)
    split, merge = variation_of_information(segmentation, truth, known)
    assert (found["voi_split"], found["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
    assert abs(found["arand"] - error) > 0.05
