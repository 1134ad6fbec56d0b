"""A model as one folder: what it holds, that it predicts as its setup, and what is refused of others."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.export.models.about import About
from em_blocks.export.models.folder import export_folder
from em_blocks.export.models.importing import check_model, import_model
from em_blocks.export.models.model import Model, channel_names
from em_blocks.export.models.package import write_checksums
from em_blocks.models.setup import Setup
from foreign_networks import blurring
from tiny_setup import NETWORK
from travelling import trained_setup, two_headed

ABOUT = {
    "authors": [{"name": "Ada Tester", "orcid": "0000-0002-1825-0097"}], "license": "CC-BY-4.0",
    "cite": [{"text": "Tester 2026", "doi": "10.1000/182"}],
    "data": [{"name": "phantom", "license": "CC0-1.0", "url": "https://example.org"}],
}


def model_of(folder, **about):
    setup = Setup.from_folder(folder)
    return Model(setup, setup.checkpoint_path(), About.from_dict(about))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_setup(tmp_path_factory.mktemp("setups") / "tiny")


@pytest.fixture
def exported(trained, tmp_path):
    export_folder(model_of(trained, **ABOUT), tmp_path / "model")
    return tmp_path / "model"


def predicted(folder, raw):
    setup = Setup.from_folder(folder)
    with torch.inference_mode():
        return setup.load(setup.checkpoint_path()).predict(raw)


def test_the_folder_is_a_setup_that_predicts_the_same(trained, exported):
    raw = torch.rand(1, 1, *Setup.from_folder(trained).build().shapes.input_shape((4, 8, 8)))
    expected, found = predicted(trained, raw), predicted(exported, raw)
    assert found.keys() == {"affinities", "vectors"}
    for name, values in expected.items():
        assert torch.equal(found[name], values)
    assert not (exported / "network.py").exists()
    assert Setup.from_folder(exported).config.training is None


def test_the_test_input_looks_like_data_and_its_output_is_reproduced(exported):
    raw = np.load(exported / "sample/input.npy")
    assert raw.dtype == np.uint8 and raw.std() > 10
    vectors = np.load(exported / "sample/vectors.npy")
    assert vectors.dtype == np.float32 and np.abs(vectors).max() > 1  # nm
    assert vectors.std() > 0.1, "an output that is the same everywhere tests little"
    differences = check_model(exported)
    assert [d.head for d in differences] == ["affinities", "vectors"]
    assert all(d.ok and d.largest == 0 for d in differences)
    assert differences[1].accepted == pytest.approx(1e-5 * np.abs(vectors).max())


def test_other_weights_give_another_output(exported):
    path = exported / "checkpoints/best.safetensors"
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights["heads.affinities.bias"] += 1e-3
    save_file(weights, path)
    affinities, vectors = check_model(exported)
    assert not affinities.ok and 1e-5 < affinities.largest < 1e-3
    assert vectors.ok


def test_the_card_says_what_others_need_to_know(exported):
    card = (exported / "README.md").read_text()
    for part in (
        "Ada Tester", "Licence: CC-BY-4.0", "Tester 2026 10.1000/182", "40 x 4.6 x 4.6 nm",
        "raw * 0.00784313725490196 + -1.0", "| context | 0 x 4 x 4 voxels", "multiples of 1 x 2 x 2",
        "| affinities | affinities | sigmoid | 4: affinities -1 0 0", "times 50 nm",
        "phantom: licence CC0-1.0", "trained on phantom of seed 3, voxels [0, 0, 0] to [40, 64, 64]",
        "| affinities/cut_ap | 0.7500 |", "iteration 8",
    ):
        assert part in card, part


def test_the_metadata_have_the_keys_of_cellmaps_models_and_what_em_blocks_adds(exported):
    found = json.loads((exported / "metadata.json").read_text())
    assert found["model_name"] == "tiny" and found["model_type"] == "UNet"
    assert (found["in_channels"], found["out_channels"], found["iteration"]) == (1, 7, 8)
    assert found["channels_names"][0] == "affinities -1 0 0" and len(found["channels_names"]) == 7
    assert found["input_voxel_size"] == [40.0, 4.6, 4.6]
    assert found["inference_output_shape"] == [4, 16, 16]
    assert found["inference_input_shape"] == [4, 24, 24]
    assert found["em_blocks"]["normalization"] == {"scale": 1 / 127.5, "shift": -1.0}
    assert found["em_blocks"]["heads"]["vectors"]["unit_nm"] == 50
    assert found["em_blocks"]["lineage"]["data"]["sources"][0]["sha256"] == "ab" * 32
    metrics = json.loads((exported / "metrics.json").read_text())
    assert metrics["scores"] == {"affinities/cut_ap": 0.75, "affinities/cut_f1": 0.5}
    assert len(metrics["history"]) == 2
    training = json.loads((exported / "training.json").read_text())
    assert training["training"]["iterations"] == 8 and training["command"] == "em-blocks train tiny"


def test_channels_are_named_by_their_head():
    heads = model_config(two_headed())
    assert channel_names("affinities", heads["affinities"])[3] == "affinities 0 0 -3"
    assert channel_names("vectors", heads["vectors"]) == ["vectors 0", "vectors 1", "vectors 2"]
    values = two_headed()
    classes = {"kind": "classes", "classes": ["mito", "er"], "activation": "softmax"}
    values["heads"] = {"organelles": classes}
    head = model_config(values)["organelles"]
    assert channel_names("organelles", head) == ["background", "mito", "er"]


def model_config(values):
    from em_blocks.models.config import SetupConfig

    return SetupConfig.from_dict(values).heads


@pytest.mark.parametrize("name", ["again", "again.zip"])
def test_a_model_comes_back_as_it_was(exported, trained, tmp_path, name):
    export_folder(model_of(trained, **ABOUT), tmp_path / name)
    imported = import_model(tmp_path / name, tmp_path / "setup")
    assert imported.setup == tmp_path / "setup" and imported.remarks == []
    assert all(d.largest == 0 for d in imported.differences)
    a, b = (Setup.from_folder(f) for f in (exported, tmp_path / "setup"))
    assert a.fingerprint(a.checkpoint_path()) == b.fingerprint(b.checkpoint_path())


def test_nothing_is_overwritten_and_nothing_half_is_left(exported, trained, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RefusedError, match="is not overwritten"):
        export_folder(model_of(trained), exported)
    with pytest.raises(RefusedError, match="is not overwritten"):
        import_model(exported, exported)
    with pytest.raises(ConfigError, match="is no model that travels"):
        import_model(trained, tmp_path / "setup")
    assert sorted(tmp_path.iterdir()) == before


# -- code -------------------------------------------------------------------------------------


def test_code_that_only_builds_the_unet_of_the_config_is_left_behind(tmp_path):
    export_folder(model_of(trained_setup(tmp_path / "coded", code=True)), tmp_path / "model")
    assert not (tmp_path / "model" / "network.py").exists()
    assert all(d.largest == 0 for d in check_model(tmp_path / "model"))


def test_code_of_a_network_of_its_own_is_refused_unless_it_is_trusted(tmp_path):
    setup = trained_setup(tmp_path / "coded", code=True)
    halved = NETWORK.replace("import Head, UNet", "import Head, UNet as Plain") + (
        "\nclass UNet(Plain):\n    def predict(self, raw, heads=None):\n"
        "        return {n: v / 2 for n, v in super().predict(raw, heads).items()}\n"
    )
    (setup / "network.py").write_text(halved)
    model = model_of(setup)
    assert model.needs_code
    export_folder(model, tmp_path / "model")
    assert "it is code" in (tmp_path / "model" / "README.md").read_text()
    marker = tmp_path / "executed"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n{halved}"
    (tmp_path / "model" / "network.py").write_text(code)
    write_checksums(tmp_path / "model")
    with pytest.raises(RefusedError, match=r"brings network\.py.*--trust-code"):
        import_model(tmp_path / "model", tmp_path / "setup")
    assert not marker.exists() and not (tmp_path / "setup").exists()
    imported = import_model(tmp_path / "model", tmp_path / "setup", trust_code=True)
    assert marker.exists() and "is code of the model" in imported.remarks[0]
    assert all(d.ok for d in imported.differences)


# -- damage and malice ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "checkpoints/best.safetensors").write_bytes(b"x"), "damaged.*best.safetensors"),
        (lambda f: (f / "metrics.json").unlink(), r"missing: metrics\.json"),
        (lambda f: (f / "network.py").write_text("1 / 0"), r"added: network\.py"),
        (lambda f: (f / "checksums.json").write_text("[]"), "cannot be read"),
    ],
)
def test_a_model_with_other_files_than_were_exported_is_refused(exported, tmp_path, spoil, message):
    spoil(exported)
    with pytest.raises(CheckpointError, match=message):
        import_model(exported, tmp_path / "setup")
    assert not (tmp_path / "setup").exists()


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["checkpoints/best.safetensors", "sample/input.npy"])
def test_pickles_are_never_loaded(exported, tmp_path, name):
    (exported / name).write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    write_checksums(exported)
    with pytest.raises(CheckpointError, match=r"cannot be (loaded|read)"):
        import_model(exported, tmp_path / "setup")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "setup").exists()


def test_a_model_that_does_not_give_its_test_output_is_refused(exported, tmp_path):
    values = np.load(exported / "sample/affinities.npy")
    values[0, 0, 0, 0] += 0.01
    np.save(exported / "sample/affinities.npy", values)
    write_checksums(exported)
    with pytest.raises(CheckpointError, match=r"own test output.*affinities differs by 0\.01"):
        import_model(exported, tmp_path / "setup")
    assert not (tmp_path / "setup").exists()


def test_a_model_whose_network_is_another_file_of_this_machine_is_refused(exported, tmp_path):
    secret, _ = blurring(tmp_path / "secret.onnx", padding=True)
    config = json.loads((exported / "config.json").read_text())
    config["network"] = {"kind": "onnx", "file": str(secret)}
    (exported / "config.json").write_text(json.dumps(config))
    write_checksums(exported)
    with pytest.raises(ConfigError, match=r"secret\.onnx, which is not a file of the model"):
        import_model(exported, tmp_path / "setup")


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt"])
def test_a_zip_file_that_leaves_its_folder_is_not_unpacked(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ConfigError, match="leaves its folder"):
        import_model(tmp_path / "evil.zip", tmp_path / "setup")


def test_a_zip_file_with_a_link_or_without_end_is_not_unpacked(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("config.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ConfigError, match="is a link"):
        import_model(tmp_path / "link.zip", tmp_path / "setup")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(200_000))
    monkeypatch.setattr("em_blocks.export.models.package.MOST_BYTES", 100_000)
    with pytest.raises(ConfigError, match="It was not unpacked"):
        import_model(tmp_path / "bomb.zip", tmp_path / "setup")
    (tmp_path / "model.txt").write_text("x")
    for name, message in (("no.zip", "does not exist"), ("model.txt", "neither a folder nor a zip")):
        with pytest.raises(ConfigError, match=message):
            import_model(tmp_path / name, tmp_path / "setup")


def test_a_setup_that_was_not_exported_has_no_test_input(trained):
    with pytest.raises(ConfigError, match=r"no sample/input\.npy.*em-blocks model export"):
        check_model(trained)
