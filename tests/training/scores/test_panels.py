"""Panels of the validation: the same section of every data set, as it is and as it is predicted."""

import numpy as np
import pytest
import torch
from PIL import Image

from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import BACKGROUND, OBJECT
from em_blocks.nets.unet import Head, UNet
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores import panels as module
from em_blocks.training.scores.data_sets import DataSets
from em_blocks.training.scores.panels import KEPT, Panels, panel_shape
from tiny_setup import tiny_config

SHAPE = (9, 40, 56)
PLACE = (slice(6, 7), slice(20, 30), slice(35, 50))  # where the only object is


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these are faster so, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**heads):
    values = tiny_config()
    values |= {"voxel_size": [40, 4.6, 4.6], "tile_shape": [4, 16, 16]}
    values["normalization"] = {"scale": 0.00784313725490196, "shift": -1.0}
    values["heads"] = {"organelles": {"kind": "classes", "classes": ["mito"]}} | heads
    values["training"]["score"] = "organelles/f1"
    return SetupConfig.from_dict(values)


def network_of(made):
    torch.manual_seed(2)
    heads = {name: Head(head.channels, head.activation) for name, head in made.heads.items()}
    network = made.network.model_dump()
    network = {key: network[key] for key in ("features", "kernels", "pooling")}
    return UNet(**network, heads=heads).eval()


def box(name="one"):
    mito = np.full(SHAPE, BACKGROUND, np.uint8)
    mito[PLACE] = OBJECT
    raw = np.full(SHAPE, 100, np.uint8)
    raw[PLACE] = 200
    labels = {"mito": mito, "labels": (1 + np.indices(SHAPE)[2] // 9).astype(np.uint64)}
    return TrainingData(name, raw, labels, (1, 3, 5), SHAPE, 1.0, data_set=name)


@pytest.fixture
def panels(tmp_path):
    made = config()
    return Panels(tmp_path / "panels", made, DataSets(made, [box("one/raw"), box("two")]))


def test_each_data_set_has_a_picture_of_the_section_with_the_object(panels, monkeypatch):
    shown = []
    panel = module.panel

    def noted(pictures, **options):
        shown.append((pictures, options["title"]))
        return panel(pictures, **options)

    monkeypatch.setattr(module, "panel", noted)
    made = panels.write(network_of(panels.config), 7)
    assert list(made) == ["one/raw", "two"]
    assert {file.name for file in panels.folder.iterdir()} == {"one-raw_7.png", "two_7.png"}
    stored = np.asarray(Image.open(panels.folder / "two_7.png"))
    assert (stored == made["two"]).all() and stored.ndim == 3
    pictures, title = shown[1]
    assert title == "two, section 6 of raw, iteration 7"
    assert list(pictures) == ["raw", *(f"organelles: {w}" for w in ("truth", "prediction", "errors"))]
    height, width = pictures["raw"].shape[:2]
    inside = (slice(20 - 3, 30 - 3), slice(35 - 5, 50 - 5))
    assert (height, width) == (37, 51) and (pictures["raw"][inside] == 200).all()
    coloured = np.ptp(pictures["organelles: truth"], axis=-1) > 0
    assert coloured[inside].all() and coloured.sum() == 10 * 15


def test_errors_tell_found_missed_and_wrong_apart():
    head = config().heads["organelles"]
    made = {"target": np.array([[[1, 1, 0, 0, 1]]]), "mask": np.array([[[1, 1, 1, 1, 0]]])}
    predicted = np.array([[[0.9, 0.1, 0.5, 0.2, 0.1]]])
    grey = np.zeros((1, 5))
    right, missed, wrong, background, unknown = head.mistakes(predicted, made, grey)[0].tolist()
    assert background == unknown == [0, 0, 0]
    assert len({tuple(right), tuple(missed), tuple(wrong), (0, 0, 0)}) == 4
    assert missed[0] > missed[2] and wrong[2] > wrong[0], "orange, and blue"


def test_heads_that_need_voxels_around_are_drawn_where_these_are_known(tmp_path):
    made = config(shape={"kind": "lsd", "sigma_nm": 10})
    panels = Panels(tmp_path, made, DataSets(made, [box()]))
    assert panels.write(network_of(made), 1)["one"].ndim == 3
    far = config(shape={"kind": "lsd", "sigma_nm": 200})  # wider than the section
    panels = Panels(tmp_path, far, DataSets(far, [box()]))
    assert panels.write(network_of(far), 1)["one"].ndim == 3


def test_only_the_newest_stay(panels, monkeypatch):
    monkeypatch.setattr(panels, "_picture", lambda *of: np.zeros((4, 4, 3), np.uint8))
    for iteration in range(1, KEPT + 4):
        panels.write(None, 10 * iteration)
    kept = sorted(int(file.stem.split("_")[1]) for file in panels.folder.glob("two_*.png"))
    assert kept == [10 * iteration for iteration in range(4, KEPT + 4)]


def test_a_folder_that_cannot_be_written_is_a_warning(panels, caplog):
    panels.folder.write_text("a file")
    made = panels.write(network_of(panels.config), 3)
    assert set(made) == {"one/raw", "two"} and "the training goes on without them" in caplog.text


def test_there_are_none_of_a_network_that_is_not_finite(panels):
    network = network_of(panels.config)
    torch.nn.init.constant_(network.heads["organelles"].bias, torch.nan)
    assert panels.write(network, 1) == {} and not panels.folder.exists()


def test_a_panel_is_a_section_of_whole_tiles():
    assert panel_shape((4, 16, 100)) == (4, 384, 300)
    assert panel_shape((1, 500, 64)) == (1, 500, 384)
