"""A prediction of a ROI is the crop of a prediction of everything, byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise import run
from em_blocks.errors import FingerprintMismatchError
from em_blocks.geometry import Box, Frame
from em_blocks.models.setup import Setup
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume

SETUPS = Path(__file__).parents[3] / "setups"
FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (13, 50, 44)

PADDING_NETWORK = """
import torch

class Padding(torch.nn.Module):
    '''Three-voxel mean and a trend over the tile: what is computed depends on the tile.'''

    context = (0, 0, 0)

    def check_tile(self, shape):
        pass

    def predict(self, raw, names=None):
        mean = torch.nn.functional.avg_pool3d(raw, 3, stride=1, padding=1)
        trend = torch.linspace(0, 0.1, raw.shape[-1])
        return {"affinities": torch.sigmoid(mean + trend).expand(-1, 9, -1, -1, -1)}

def build(config):
    return Padding()
"""


def volume(folder, shape, frame):
    raw = Volume.create(str(folder / "raw.zarr/raw"), shape=shape, dtype="uint8", frame=frame,
                        chunk_shape=(7, 16, 16))
    raw.write(raw.box, np.random.default_rng(3).integers(0, 256, shape).astype("uint8"))
    return raw


def predict(raw, setup, output, box=None, **options) -> Predict:
    heads = json.loads((Path(setup) / "config.json").read_text())["heads"]
    values = {
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup), "precision": "fp32",
        "output": str(output), "outputs": {head: {"dtype": "float32"} for head in heads}, **options,
    }
    if box is not None:
        roi = raw.frame.to_roi(box)
        values["roi"] = {"offset": roi.offset, "shape": roi.shape}
    return Predict.from_dict(values)


def predicted(task) -> dict[str, np.ndarray]:
    """Every block done in this process."""
    task.check()
    task.check_alignment()
    for spec in task.output_specs():
        spec.create(task.grid(), "roi")
    with task.open(RunContext(task.measure())) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    volumes = {spec.name: Volume.open(spec.path) for spec in task.output_specs()}
    return {name: found.read(found.box) for name, found in volumes.items()}


def assert_is_crop(part, whole, box):
    for head, values in whole.items():
        assert part[head].tobytes() == values[(..., *box.slices)].tobytes(), head


@st.composite
def boxes(draw, shape=SHAPE):
    begin = [draw(st.integers(0, n - 1)) for n in shape]
    size = [draw(st.integers(1, n - b)) for n, b in zip(shape, begin, strict=True)]
    return Box(begin, size)


OPTIONS = [{}, {"padding": "constant"}, {"test_time_augmentation": "mirrors"}, {"batch_size": 3}]


@pytest.fixture(params=OPTIONS, ids=str)
def options(request):
    return {"block_shape": (6, 24, 12), **request.param}


def test_any_roi_equals_the_crop_of_the_whole(setup_folder, tmp_path_factory, options):
    folder = tmp_path_factory.mktemp("roi")
    raw = volume(folder, SHAPE, FRAME)
    whole = predicted(predict(raw, setup_folder, folder / "whole.zarr", **options))
    number = iter(range(1000))

    @settings(max_examples=20)
    @given(boxes())
    def check(box):
        task = predict(raw, setup_folder, folder / f"{next(number)}.zarr", box, **options)
        assert task.grid().frame.offset == pytest.approx(FRAME.to_roi(box).offset)
        assert_is_crop(predicted(task), whole, box)

    check()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SETUPS.glob("*/config.json")))
def test_rois_of_every_shipped_network_equal_the_crop_of_the_whole(name, tmp_path):
    setup = Setup.from_folder(SETUPS / name)
    tile = tuple(f * max(1, 8 // f) for f in setup.build().tile_factor)
    frame = Frame(setup.config.voxel_size, (400, 41, -20))
    raw = volume(tmp_path, tuple(2 * t + 3 for t in tile), frame)
    options = {"tile_shape": tile, "block_shape": tile}
    whole = predicted(predict(raw, setup.folder, tmp_path / "whole.zarr", **options))
    for number, corner in enumerate([(1, 1, 3), (4, 8, 8), (9, 2, 5)]):
        box = Box(corner, (3, 5, 7))
        part = predict(raw, setup.folder, tmp_path / f"{number}.zarr", box, **options)
        assert_is_crop(predicted(part), whole, box)


@pytest.mark.parametrize("overlap", [(0, 0, 0), (2, 4, 4)])
def test_a_network_that_pads_sees_the_same_tiles_of_the_volume(overlap, setup_folder, tmp_path):
    padding = tmp_path / "padding"
    (padding / "checkpoints").mkdir(parents=True)
    (padding / "config.json").write_text((setup_folder / "config.json").read_text())
    (padding / "network.py").write_text(PADDING_NETWORK)
    from safetensors.torch import save_file

    save_file({}, padding / "checkpoints" / "best.safetensors")
    raw = volume(tmp_path, SHAPE, FRAME)
    block = tuple(t - o for t, o in zip((6, 12, 12), overlap, strict=True))
    options = {"block_shape": block, "overlap": overlap}
    whole = predicted(predict(raw, padding, tmp_path / "whole.zarr", **options))
    for number, corner in enumerate([(1, 3, 5), (0, 12, 24), (5, 7, 11)]):
        box = Box(corner, (7, 20, 13))
        part = predict(raw, padding, tmp_path / f"{number}.zarr", box, **options)
        assert_is_crop(predicted(part), whole, box)


def test_only_a_roi_between_the_pooling_steps_changes_the_identity(setup_folder, tmp_path):
    raw = volume(tmp_path, SHAPE, FRAME)  # pooling is 1, 2, 2

    def identity(box):
        task = predict(raw, setup_folder, tmp_path / "p.zarr", box, block_shape=(6, 24, 12))
        return task.identity()["inputs"]

    assert "tiles_from" not in identity(None)
    assert "tiles_from" not in identity(Box((3, 4, 6), (6, 12, 12)))
    assert "tiles_from" in identity(Box((3, 4, 7), (6, 12, 12)))
    assert "tiles_from" in identity(Box((3, 5, 6), (6, 12, 12)))


def test_a_run_with_tiles_from_the_corner_of_its_roi_is_not_mixed_with_others(
    setup_folder, tmp_path, monkeypatch
):
    raw = volume(tmp_path, SHAPE, FRAME)
    task = predict(raw, setup_folder, tmp_path / "out/p.zarr", Box((1, 3, 5), (6, 12, 12)),
                   block_shape=(6, 12, 12))
    with monkeypatch.context() as old:
        old.setattr(Predict, "_shift", (0, 0, 0))
        assert run(task).ok
    again = task.model_copy()
    with pytest.raises(FingerprintMismatchError, match=r"tiles_from.*--adopt"):
        run(again)
    assert run(again, adopt=True).ok
