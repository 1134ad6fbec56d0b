"""Read a file of ONNX that another lab made: what is in it is checked before anything runs it.

ONNX holds a graph of operators of a standard, no code. What could still do harm: operators that need a
library of the sender, paths that name files of this machine as weights, and sizes that fill its memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from em_blocks.errors import ConfigError

STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Domains of the operators that the ONNX standard defines."""
MOST_BYTES = 16 * 2**30
"""Of one tensor: more is no layer of a network for tiles."""
LARGEST_FILE = 2**31 - 1  # of protobuf, the format of the file


class OnnxFile:
    """A checked model; raises `ConfigError` unless it is one.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    path : Path
    model : onnx.ModelProto
        With the weights of other files.
    external : dict of str to str
        Other files with weights, and their sha256 (hex).
    """

    def __init__(self, path: Path):
        self.path = path
        self.model = _parsed(path)
        _check_operators(path, self.model)
        self.external = _checked_external(path, self.model)
        _check_sizes(path, self.model)
        self._check_standard()

    def _check_standard(self) -> None:
        import onnx

        try:
            if self.external:
                onnx.load_external_data_for_model(self.model, str(self.path.parent))
            onnx.checker.check_model(self.model)
        except Exception as error:  # the checker raises what its parsers raise
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"{self.path} is not a valid ONNX model: {reason}. Export the network again; "
                "onnx.checker.check_model tells whether it is right."
            ) from error

    def content(self) -> bytes:
        """Return the whole model, its external weights included, for a session."""
        return self.model.SerializeToString()

    def inputs(self) -> list[Any]:
        """Return the inputs that are not weights."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return [value for value in self.model.graph.input if value.name not in weights]

    def largest_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of the largest tensor for an input of `shape`, as far as it is known."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        (given,) = (value for value in model.graph.input if value.name == self.inputs()[0].name)
        for dimension, size in zip(given.type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = int(size)
        del model.graph.value_info[:]
        for value in model.graph.output:  # may be stated for another shape
            value.type.tensor_type.ClearField("shape")
        try:
            found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception as error:
            raise ConfigError(
                f"{self.path} does not take an input of {tuple(shape)}: {error}. Use a tile of another "
                "shape."
            ) from error
        return max(_bytes(value) for value in [*found.input, *found.output, *found.value_info])


def shape_of(value: Any) -> tuple[int | None, ...]:
    """Return the shape of an input or output; None where any size is taken."""
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)


def _parsed(path: Path) -> Any:
    import onnx

    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ConfigError(
                f"{path} has {size / 1e9:.3g} GB, but a model of ONNX has at most 2. It is no "
                "network, or one whose weights have to be in a file of their own."
            )
        return onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"The network is the file {path}, which cannot be read ({error.strerror}). A relative path "
            "counts from the folder of config.json; correct `network.file`."
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # protobuf: DecodeError
        raise ConfigError(
            f"{path} is not a model of ONNX ({error}). Give `network.file` a .onnx file; files of other "
            "frameworks are exported by these: torch.onnx.export, tf2onnx."
        ) from error


def _check_operators(path: Path, model: Any) -> None:
    """Refuse operators that only a library of the sender could run."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in (node for body in _bodies(model) for node in body.node):
        if node.domain in STANDARD or (node.domain, node.op_type) in own:
            continue
        raise ConfigError(
            f"{path} uses the operator {node.op_type!r} of the domain {node.domain!r}, which is not "
            "of the ONNX standard and not defined in the file: only a library of its author could run "
            "it, and em_blocks loads no code that comes with a model. The file was not opened for "
            "prediction; export the network again with standard operators (for torch: without "
            "custom_opsets, and before an optimiser fuses operators)."
        )


def _bodies(model: Any) -> Iterator[Any]:
    """Yield the graph, the functions of the file, and all graphs within these."""
    waiting = [model.graph, *model.functions]
    while waiting:
        body = waiting.pop()
        yield body
        for node in body.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(model: Any) -> Iterator[Any]:
    """Yield all stored tensors: weights of all graphs, and constants."""
    for body in _bodies(model):
        for node in body.node:
            yield from _constants(node)
        yield from getattr(body, "initializer", ())  # functions have none
        for sparse in getattr(body, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)


def _constants(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def _checked_external(path: Path, model: Any) -> dict[str, str]:
    """Return the other files that hold weights; raise `ConfigError` if one is not beside the model."""
    found = {}
    for tensor in _tensors(model):
        if not tensor.external_data:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        name = where.get("location", "")
        file = _beside(path, name, tensor.name)
        _check_extent(path, tensor, where, file.stat().st_size)
        if name not in found:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _beside(path: Path, name: str, tensor: str) -> Path:
    relative, folder = PurePosixPath(name), path.parent.resolve()
    file = folder / relative
    inside = name and not relative.is_absolute() and ".." not in relative.parts and "\\" not in name
    if not inside or not file.resolve().is_relative_to(folder):
        raise ConfigError(
            f"{path} takes the weights {tensor!r} from the file {name!r}, which is not in its folder. "
            "A model that names other files of this machine could read any of them; it was not "
            "opened. Use one whose weights are in the .onnx file or beside it."
        )
    if not file.is_file():
        raise ConfigError(
            f"{path} takes the weights {tensor!r} from the file {file}, which is missing. Bring it "
            "there: the model and this file belong together."
        )
    return file


def _check_extent(path: Path, tensor: Any, where: dict[str, str], size: int) -> None:
    needed = prod(tensor.dims) * _itemsize(tensor.data_type)
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", needed))
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length != needed or offset + length > size:
        raise ConfigError(
            f"{path} takes the weights {tensor.name!r}, {tuple(tensor.dims)} of {needed} bytes, from "
            f"{where.get('location')!r} ({size} bytes), offset {where.get('offset', 0)}, length "
            f"{where.get('length')}: they are not there. The file is another one or damaged; bring "
            "the one that was exported with the model."
        )


def _check_sizes(path: Path, model: Any) -> None:
    """Refuse weights that are larger than their data, and tensors no machine has memory for."""
    for tensor in _tensors(model):
        size = prod(tensor.dims) * max(_itemsize(tensor.data_type), 1)
        if any(d < 0 for d in tensor.dims) or size > MOST_BYTES:
            raise ConfigError(_absurd(path, f"the weights {tensor.name!r}", tensor.dims, size))
    graph = model.graph
    for sparse in graph.sparse_initializer:
        size = 4 * prod(sparse.dims)
        if size > MOST_BYTES:
            raise ConfigError(_absurd(path, "sparse weights", sparse.dims, size))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if (size := _bytes(value)) > MOST_BYTES:
            raise ConfigError(_absurd(path, f"the tensor {value.name!r}", shape_of(value), size))


def _absurd(path: Path, what: str, shape: Sequence[int | None], size: int) -> str:
    return (
        f"{path} declares {what} of the shape {tuple(shape)}, {size / 2**30:.3g} GiB. More than "
        f"{MOST_BYTES / 2**30:.0f} GiB are refused before memory is asked for it: no layer of a network "
        "for tiles is so large. The file is damaged, or made to fill the memory of its readers."
    )


def _bytes(value: Any) -> int:
    """Return the bytes of a tensor of which all sizes are known, else 0."""
    shape = shape_of(value)
    known = [size for size in shape if size is not None]
    return prod(known) * _itemsize(value.type.tensor_type.elem_type) if len(known) == len(shape) else 0


def _itemsize(data_type: int) -> int:
    from onnx import helper

    try:
        return helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, ValueError, TypeError):  # text, or undefined
        return 1
