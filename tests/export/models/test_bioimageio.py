"""Packages of bioimage.io: ours come back as they were, those of others become setups or are refused.

tests/volumes/test_validators.py has bioimage.io's own library read and run ours.
"""

import hashlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
import yaml
from onnx import helper

from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.export.models.bioimageio import export_bioimageio
from em_blocks.export.models.importing import check_model, import_model
from em_blocks.export.models.model import Model
from em_blocks.models.setup import Setup
from foreign_networks import blurred, blurring, save_graph
from travelling import trained_setup


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_setup(tmp_path_factory.mktemp("setups") / "tiny")


@pytest.fixture(scope="module")
def package(trained, tmp_path_factory):
    """Our package as one file."""
    setup = Setup.from_folder(trained)
    output = tmp_path_factory.mktemp("package") / "tiny.zip"
    export_bioimageio(Model(setup, setup.checkpoint_path()), output)
    return output


def test_the_description_says_what_the_network_takes_and_gives(package):
    with zipfile.ZipFile(package) as archive:
        rdf = yaml.safe_load(archive.read("rdf.yaml"))
        onnx = archive.read("model.onnx")
        assert {"README.md", "test_raw.npy", "test_vectors.npy"} <= set(archive.namelist())
    assert rdf["weights"]["onnx"]["sha256"] == hashlib.sha256(onnx).hexdigest()
    (given,), (affinities, vectors) = rdf["inputs"], rdf["outputs"]
    z, y, x = given["axes"][2:]
    assert (z["size"], y["size"]) == ({"min": 1, "step": 1}, {"min": 10, "step": 2})
    assert (z["scale"], x["scale"], x["unit"]) == (40.0, 4.6, "nanometer")
    assert given["preprocessing"][1]["kwargs"] == {"gain": 1 / 127.5, "offset": -1.0}
    assert affinities["axes"][3]["size"] == {"tensor_id": "raw", "axis_id": "y", "offset": -8}
    assert affinities["axes"][1]["channel_names"][3] == "affinities_0_0_m3"
    assert vectors["id"] == "vectors"


def test_our_package_comes_back_with_its_heads(package, trained, tmp_path):
    imported = import_model(package, tmp_path / "setup")
    before, after = Setup.from_folder(trained), Setup.from_folder(imported.setup)
    assert after.config.heads == before.config.heads
    assert after.config.normalization == before.config.normalization
    assert after.config.network.kind == "onnx" and after.build().tile_factor == (1, 2, 2)
    assert all(d.largest <= 1e-5 * max(1, d.accepted * 1e3) for d in imported.differences)
    assert all(d.ok for d in check_model(imported.setup))


def test_our_config_in_a_package_cannot_name_other_files_or_networks(package, tmp_path):
    folder = tmp_path / "p"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["config"]["em_blocks"]["config"]["network"]["file"] = "/etc/passwd"
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    setup = Setup.from_folder(import_model(folder, tmp_path / "setup").setup)
    assert setup.config.network.file == tmp_path / "setup/model.onnx"
    for wrong in (None, {"config": 3}, {"config": {"network": {}}}):
        rdf["config"]["em_blocks"] = wrong
        (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
        with pytest.raises(ConfigError, match=r"says under config\.em_blocks"):
            import_model(folder, tmp_path / "again")


# -- packages of others -----------------------------------------------------------------------


def axis(letter, size, unit="nanometer", scale=8.0, **more):
    return {"type": "space", "id": letter, "size": size, "unit": unit, "scale": scale, **more}


def described(folder, *, spoil=lambda rdf: None, zipped=False):
    """Write a package of a network with padding, whose last layer is a sigmoid of the package."""
    folder.mkdir()
    _, kernel = blurring(folder / "weights.onnx", padding=True)
    raw = np.random.default_rng(2).integers(0, 200, (6, 12, 10)).astype("uint8")
    np.save(folder / "in.npy", raw[None, None])
    mean, std = 100.0, 50.0
    values = np.pad((raw - mean) / std, 1)
    np.save(folder / "out.npy", blurred(values, kernel)[None].astype("float32"))
    sizes = {"z": 6, "y": {"min": 8, "step": 4}, "x": {"min": 6, "step": 4}}
    follows = {a: {"tensor_id": "image", "axis_id": a, "offset": 0} for a in "zyx"}
    rdf = {
        "type": "model", "format_version": "0.5.4", "name": "Other lab's net", "timestamp": "2026-01-01",
        "inputs": [{
            "id": "image", "test_tensor": file(folder, "in.npy"),
            "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["em"]},
                     *(axis(a, sizes[a]) for a in "zyx")],
            "preprocessing": [
                {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": mean, "std": std}},
            ],
        }],
        "outputs": [{
            "id": "probability", "test_tensor": file(folder, "out.npy"),
            "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["mito", "cell wall"]},
                     *(axis(a, follows[a], halo=1) for a in "zyx")],
        }],
        "weights": {"onnx": {**file(folder, "weights.onnx"), "opset_version": 17}},
    }
    spoil(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return folder


def file(folder, name):
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def test_a_package_of_another_lab_becomes_a_setup(tmp_path):
    imported = import_model(described(tmp_path / "p"), tmp_path / "setup")
    setup = Setup.from_folder(imported.setup)
    config = setup.config
    assert config.voxel_size == (8.0, 8.0, 8.0)
    assert config.normalization.scale == pytest.approx(1 / 50)
    assert config.normalization.shift == pytest.approx(-2)
    (head,) = config.heads.values()
    assert (head.kind, head.classes) == ("classes", ("mito", "cell_wall"))
    # Halos are not used, and tiles have sizes that the network takes.
    assert setup.build().context == (1, 1, 1) and config.tile_shape == (4, 94, 96)
    setup.build().check_tile(config.tile_shape)
    assert imported.remarks == [] and check_model(imported.setup)[0].largest == 0


def described_sections(folder):
    """Write a package of a network for sections whose sigmoid is a step of the package."""
    folder.mkdir()
    shape = ("n", 1, "y", "x")
    save_graph(folder / "weights.onnx", [helper.make_node("Neg", ["raw"], ["logits"])],
               [("raw", shape)], [("logits", shape)])
    raw = np.random.default_rng(3).random((1, 1, 12, 10), "float32")
    np.save(folder / "in.npy", raw)
    np.save(folder / "out.npy", 1 / (1 + np.exp(raw * 2 - 1)))
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["em"]}]
    rdf = {
        "type": "model", "format_version": "0.5.4", "name": "2-D net",
        "inputs": [{
            "id": "image", "test_tensor": file(folder, "in.npy"),
            "axes": [*axes, axis("y", {"min": 8, "step": 8}), axis("x", 10)],
            "preprocessing": [{"id": "scale_linear", "kwargs": {"gain": [2], "offset": [-1]}}],
        }],
        "outputs": [{
            "id": "probability", "test_tensor": file(folder, "out.npy"),
            "axes": [*axes, axis("y", {"tensor_id": "image", "axis_id": "y"}), axis("x", 10)],
            "postprocessing": [{"id": "sigmoid"}, {"id": "ensure_dtype"}],
        }],
        "weights": {"onnx": {**file(folder, "weights.onnx"), "opset_version": 17}},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return folder


def test_a_network_for_sections_becomes_a_setup_for_volumes(tmp_path):
    folder = described_sections(tmp_path / "p")
    with pytest.raises(ConfigError, match=r"'z' has no place in its input.*--voxel-size"):
        import_model(folder, tmp_path / "setup")
    imported = import_model(folder, tmp_path / "setup", voxel_size=(40, 8, 8))
    setup = Setup.from_folder(imported.setup)
    assert setup.config.name == "n2_D_net" and setup.config.tile_shape == (1, 512, 10)
    assert setup.config.network.axes == "ncyx" and list(setup.config.heads) == ["probability"]
    assert all(d.ok for d in imported.differences)
    raw = torch.rand(2, 1, 3, 8, 10) * 2 - 1
    torch.testing.assert_close(setup.build().predict(raw)["probability"], torch.sigmoid(-raw))


def test_a_scale_of_every_image_is_that_of_the_test_input_and_said(tmp_path):
    def own_scale(rdf):
        rdf["inputs"][0]["preprocessing"] = [
            {"id": "scale_range", "kwargs": {"min_percentile": 5, "max_percentile": 95}}
        ]

    folder = described(tmp_path / "p", spoil=own_scale)
    raw = np.load(folder / "in.npy")[0, 0]
    low, high = np.percentile(raw, [5, 95])
    _, kernel = blurring(tmp_path / "same.onnx", padding=True)
    np.save(folder / "out.npy", blurred(np.pad((raw - low) / (high - low), 1), kernel)[None])
    describe_again(folder, "out.npy")
    imported = import_model(folder, tmp_path / "setup")
    scale = Setup.from_folder(imported.setup).config.normalization
    assert scale.scale == pytest.approx(1 / (high - low), rel=1e-6)
    assert scale.shift == pytest.approx(-low / (high - low), rel=1e-6)
    assert "scales every image by its own scale_range" in imported.remarks[0]


def describe_again(folder, name):
    """Write the checksum of a file that was replaced."""
    text = (folder / "rdf.yaml").read_text()
    rdf = yaml.safe_load(text)
    entries = [rdf["weights"]["onnx"], rdf["outputs"][0]["test_tensor"]]
    (before,) = (entry["sha256"] for entry in entries if entry["source"] == name)
    (folder / "rdf.yaml").write_text(text.replace(before, file(folder, name)["sha256"]))


def only(kind, **keys):
    def spoil(rdf):
        rdf["weights"] = {kind: {"source": "weights.pt", **keys}}

    return spoil


@pytest.mark.parametrize(
    ("kind", "why"),
    [("pytorch_state_dict", "a pickle, which runs code"), ("torchscript", "a program of torch"),
     ("keras_hdf5", "a program of Keras"), ("tensorflow_saved_model_bundle", "a program of TensorFlow")],
)
def test_pickled_weights_and_programs_are_refused_unopened(tmp_path, kind, why):
    folder = described(tmp_path / "p", spoil=only(kind))

    class Malicious:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "executed"),)

    (folder / "weights.pt").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(RefusedError, match=f"only as {kind}, {why}.*Ask for weights of ONNX"):
        import_model(folder, tmp_path / "setup")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "setup").exists()


def change(path, value):
    """Replace a value of the description: ("inputs", 0, "id")."""

    def spoil(rdf):
        at = rdf
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("path", "value", "error", "message"),
    [
        (("format_version",), "0.4.10", ConfigError, r"version 0\.4\.10, but 0\.5 is needed"),
        (("type",), "dataset", ConfigError, "type"),
        (("weights", "onnx", "sha256"), "0" * 64, CheckpointError, r"weights\.onnx of the package"),
        (("weights", "onnx", "source"), "https://example.org/w.onnx", ConfigError, "one .zip file"),
        (("weights", "onnx", "source"), "../weights.onnx", ConfigError, "not a file of the package"),
        (("weights", "onnx", "source"), "gone.onnx", CheckpointError, "is not in it"),
        (("inputs", 0, "axes", 2, "unit"), None, ConfigError, "axis 'z' has no unit.*--voxel-size"),
        (("inputs", 0, "axes", 2, "id"), "depth", ConfigError, "has the axes"),
        (("inputs", 0, "preprocessing", 1), {"id": "clip"}, ConfigError, "the step 'clip' before"),
        (("outputs", 0, "postprocessing"), [{"id": "binarize"}], ConfigError, "binarize behind"),
        (("outputs", 0, "axes", 2, "scale"), 16.0, ConfigError, "change the resolution"),
        (("outputs", 0, "axes", 2, "size", "offset"), -3, ConfigError, "change the resolution"),
        (("outputs", 0, "test_tensor", "source"), "in.npy", CheckpointError, "sha256"),
    ],
)
def test_what_a_package_says_wrongly_or_em_blocks_cannot_do_is_refused(
    tmp_path, path, value, error, message
):
    folder = described(tmp_path / "p", spoil=change(path, value))
    with pytest.raises(error, match=message):
        import_model(folder, tmp_path / "setup")
    assert not (tmp_path / "setup").exists()


def test_the_voxel_size_can_be_given(tmp_path):
    folder = described(tmp_path / "p", spoil=change(("inputs", 0, "axes", 2, "unit"), None))
    imported = import_model(folder, tmp_path / "setup", voxel_size=(30.0, 4.6, 4.6))
    assert Setup.from_folder(imported.setup).config.voxel_size == (30.0, 4.6, 4.6)


def test_a_package_that_does_not_give_its_test_output_is_refused(tmp_path):
    folder = described(tmp_path / "p")
    blurring(folder / "weights.onnx", padding=True, seed=5)
    describe_again(folder, "weights.onnx")
    with pytest.raises(CheckpointError, match="own test output"):
        import_model(folder, tmp_path / "setup")


def test_a_description_that_is_no_yaml_or_makes_objects_is_refused(tmp_path):
    folder = described(tmp_path / "p")
    target = tmp_path / "executed"
    for text in ("a: [", f"!!python/object/apply:os.mkdir ['{target}']", "just text"):
        (folder / "rdf.yaml").write_text(text)
        with pytest.raises(ConfigError, match="description"):
            import_model(folder, tmp_path / "setup")
    assert not target.exists()
