"""Networks as other labs export them: files of ONNX, made by onnx itself or by torch."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def save_graph(path, nodes, inputs, outputs, weights=(), *, domains=(), functions=(), opset=17):
    """Write a model; `inputs` and `outputs` are (name, shape), strings in shapes are free sizes."""
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def blurring(path, *, padding, shape=("n", 1, "z", "y", "x"), out=("n", 2, "a", "b", "c"), seed=0):
    """A convolution of 3x3x3 with two channels and a sigmoid; returns (path, its weights)."""
    kernel = np.random.default_rng(seed).normal(0, 0.3, (2, 1, 3, 3, 3)).astype("float32")
    nodes = [
        helper.make_node("Conv", ["raw", "kernel"], ["logits"], pads=[int(padding)] * 6),
        helper.make_node("Sigmoid", ["logits"], ["out"]),
    ]
    save_graph(path, nodes, [("raw", shape)], [("out", out)], [("kernel", kernel)])
    return path, kernel


def blurred(raw, kernel):
    """What that convolution gives of (z, y, x) values, without padding: (2, z - 2, y - 2, x - 2)."""
    windows = np.lib.stride_tricks.sliding_window_view(raw, (3, 3, 3))
    logits = np.einsum("zyxijk,cijk->czyx", windows, kernel[:, 0].astype("float64"))
    return 1 / (1 + np.exp(-logits))


def onnx_setup(folder, file, *, tile=(4, 8, 8), channels=2, **network):
    """Write a setup whose network is a file of ONNX, with one head of affinities."""
    shifts = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]][:channels]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "name": "foreign", "voxel_size": [40.0, 4.6, 4.6],
        "network": {"kind": "onnx", "file": str(file), **network},
        "heads": {"affinities": {"channels": channels, "neighborhood": shifts}},
        "normalization": {"scale": 1 / 127.5, "shift": -1.0}, "tile_shape": list(tile),
    }))
    return folder
