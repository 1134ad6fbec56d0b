"""Files of ONNX are checked before anything opens them: operators, other files, sizes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from em_blocks.errors import ConfigError
from em_blocks.models.networks import onnx_file
from em_blocks.models.networks.onnx_file import OnnxFile
from foreign_networks import FLOAT, blurring, save_graph

IN, OUT = ("raw", (1, 1, "z", "y", "x")), ("out", (1, 1, "z", "y", "x"))


def saved(path, model):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def plain(tmp_path):
    """A model that is right, to be spoiled."""
    path, _ = blurring(tmp_path / "model.onnx", padding=True)
    return path


def test_a_plain_model_is_read_with_its_only_input(plain):
    file = OnnxFile(plain)
    assert [value.name for value in file.inputs()] == ["raw"]
    assert onnx_file.shape_of(file.inputs()[0]) == (None, 1, None, None, None)
    assert file.external == {}
    assert onnx.load_model_from_string(file.content()).graph.node[0].op_type == "Conv"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"not protobuf at all", "not a model of ONNX|not a valid ONNX"),
     (b"", "not a valid ONNX")],
)
def test_what_is_no_model_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        OnnxFile(tmp_path / "model.onnx")


def custom(domain):
    return helper.make_node("Steal", ["raw"], ["out"], domain=domain)


def test_an_operator_of_its_author_is_refused(tmp_path):
    path = save_graph(
        tmp_path / "model.onnx", [custom("evil.ops")], [IN], [OUT], domains=["evil.ops"]
    )
    with pytest.raises(ConfigError, match=r"'Steal' of the domain 'evil\.ops'.*loads no code"):
        OnnxFile(path)


def test_an_operator_hidden_in_a_branch_is_refused(tmp_path):
    value = helper.make_tensor_value_info("inner", FLOAT, None)
    branch = helper.make_graph(
        [helper.make_node("Steal", ["raw"], ["inner"], domain="evil.ops")], "branch", [], [value]
    )
    node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    yes = [("yes", np.array(True))]
    path = save_graph(tmp_path / "model.onnx", [node], [IN], [OUT], yes, domains=["evil.ops"])
    with pytest.raises(ConfigError, match="'Steal'"):
        OnnxFile(path)


@pytest.mark.parametrize(("domain", "accepted"), [("", True), ("evil.ops", False)])
def test_a_function_of_the_file_may_use_operators_of_the_standard_only(tmp_path, domain, accepted):
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"],
        [helper.make_node("Relu" if accepted else "Steal", ["a"], ["b"], domain=domain)],
        [helper.make_opsetid("", 17), helper.make_opsetid("evil.ops", 1)],
    )
    path = save_graph(
        tmp_path / "model.onnx", [helper.make_node("Twice", ["raw"], ["out"], domain="mine")],
        [IN], [OUT], domains=["mine"], functions=[function],
    )
    if accepted:
        assert OnnxFile(path).inputs()
    else:
        with pytest.raises(ConfigError, match="'Steal'"):
            OnnxFile(path)


# -- weights in other files -----------------------------------------------------------------


def external(path, location, content=None, **entries):
    """Move the kernel of a model into another file, or only say so."""
    model = onnx.load(path)
    (kernel,) = model.graph.initializer
    data = kernel.raw_data
    external_data_helper.set_external_data(kernel, location, **entries)
    kernel.ClearField("raw_data")
    if content is not None:
        (path.parent / location).write_bytes(data if content == "right" else content)
    return saved(path, model)


def test_weights_beside_the_model_are_part_of_it(plain):
    (whole,) = onnx.load(plain).graph.initializer
    file = OnnxFile(external(plain, "weights.bin", "right"))
    assert list(file.external) == ["weights.bin"] and len(file.external["weights.bin"]) == 64
    (kernel,) = onnx.load_model_from_string(file.content()).graph.initializer
    assert kernel.raw_data == whole.raw_data and not kernel.external_data
    (plain.parent / "weights.bin").write_bytes(b"\1" * 216)
    assert OnnxFile(plain).external != file.external


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret", "..\\secret", ""])
def test_weights_elsewhere_on_this_machine_are_not_read(plain, location):
    (plain.parent.parent / "secret").write_bytes(b"\0" * 216)
    with pytest.raises(ConfigError, match="not in its folder"):
        OnnxFile(external(plain, location))


def test_a_link_that_leaves_the_folder_is_not_followed(plain, tmp_path):
    (tmp_path.parent / f"{tmp_path.name}-secret").write_bytes(b"\0" * 216)
    (tmp_path / "weights.bin").symlink_to(tmp_path.parent / f"{tmp_path.name}-secret")
    with pytest.raises(ConfigError, match="not in its folder"):
        OnnxFile(external(plain, "weights.bin"))


@pytest.mark.parametrize(
    ("content", "entries", "message"),
    [(None, {}, "is missing"), (b"\0" * 215, {}, "they are not there"),
     (b"\0" * 216, {"offset": 1}, "they are not there"),
     (b"\0" * 216, {"length": 10**12}, "they are not there")],
)
def test_weights_that_are_not_all_there_are_refused(plain, content, entries, message):
    with pytest.raises(ConfigError, match=message):
        OnnxFile(external(plain, "weights.bin", content, **entries))


# -- sizes ------------------------------------------------------------------------------------


def test_sizes_that_no_memory_holds_are_refused(plain, tmp_path):
    model = onnx.load(plain)
    model.graph.initializer[0].dims[:] = [2**20, 2**20, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"weights 'kernel' of the shape .*4.1e\+03 GiB"):
        OnnxFile(saved(tmp_path / "huge.onnx", model))
    path, _ = blurring(tmp_path / "wide.onnx", padding=True, shape=(1, 1, 2048, 2048, 2048))
    with pytest.raises(ConfigError, match=r"tensor 'raw' .*32 GiB"):
        OnnxFile(path)
    assert onnx_file.MOST_BYTES < 32 * 2**30


def test_weights_with_less_data_than_they_declare_are_refused(plain, tmp_path):
    model = onnx.load(plain)
    model.graph.initializer[0].dims[0] = 3
    with pytest.raises(ConfigError, match="not a valid ONNX model"):
        OnnxFile(saved(tmp_path / "short.onnx", model))


def test_the_largest_tensor_of_a_tile_is_known_before_it_is_made(plain):
    # Two channels of float32, as large as the input; one channel in.
    assert OnnxFile(plain).largest_bytes((1, 1, 10, 20, 30)) == 2 * 4 * 10 * 20 * 30
    assert TensorProto.FLOAT == FLOAT
