"""Networks of other labs: a file of ONNX, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt
from torch import nn

from em_blocks.config import LocalPath, Shape3, StrictModel
from em_blocks.errors import ConfigError
from em_blocks.geometry import Triple, triple
from em_blocks.models.head import Head
from em_blocks.models.network import Network
from em_blocks.models.networks.onnx_file import MOST_BYTES, OnnxFile, shape_of
from em_blocks.nets.onnx import AXES, Given, OnnxModule, Taken

Context = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]

_USUAL_AXES = {5: "nczyx", 4: "ncyx", 3: "zyx"}
_DTYPES = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64"}


def _checked_axes(axes: str) -> str:
    if len(set(axes)) < len(axes) or not {"y", "x"} <= set(axes) <= set(AXES):
        raise ValueError(
            f"the axes {axes!r} are not those of a network here: each of n (batch), c (channel), "
            "z, y and x at most once, y and x in any case"
        )
    return axes


Axes = Annotated[str, AfterValidator(_checked_axes)]


class OnnxOutput(StrictModel):
    """What a head takes of the network."""

    name: str | None = Field(None, description="Of the output; default: the head's, or the only one.")
    axes: Axes | None = Field(None, description="Default: those of the input.")
    channels: tuple[NonNegativeInt, ...] | None = Field(None, description="Default: all, in order.")
    activation: Literal["sigmoid", "tanh", "softmax"] | None = Field(
        None, description="Applied to the output. Default: the network has done it."
    )


class OnnxNetwork(Network):
    """A network in a file of ONNX. Its outputs are in the unit of the heads."""

    trainable: ClassVar[bool] = False

    kind: Literal["onnx"]
    file: LocalPath = Field(description="The model.onnx, relative to the config.")
    context: Context | None = Field(
        None,
        description="Voxels per side (z, y, x) by which its input is larger than what it computes. "
        "Default: by the sizes that the file states; none where it takes any.",
    )
    crop: Context = Field(
        (0, 0, 0),
        description="Voxels per side (z, y, x) of what it computes that are not used: near the border a "
        "network with padding sees less than elsewhere.",
    )
    tile_factor: Shape3 | None = Field(
        None,
        description="Voxels by which tiles may be moved without a change of any value, as for a network "
        "without padding. Default: values depend on where tiles begin.",
    )
    axes: Axes | None = Field(
        None,
        description='Axes of the input, the slowest first. Default: "nczyx", "ncyx" (section by '
        'section) or "zyx", by their number.',
    )
    outputs: dict[str, OnnxOutput] = Field(
        default_factory=dict, description="What every head takes; default: the output of its name."
    )

    @property
    def weights(self) -> Path | None:
        return self.file

    def content(self) -> dict:
        """Return all keys but the path, and the content of other files with weights."""
        values = self.model_dump(mode="json", exclude={"file"}, exclude_none=True)
        return values | ({"external": self._file.external} if self._file.external else {})

    @cached_property
    def _file(self) -> OnnxFile:
        return OnnxFile(self.file)

    def build(self, heads: Mapping[str, Head]) -> nn.Module:
        """Open the file, checked, as a network.

        Raises
        ------
        ConfigError
            If the file is none of ONNX, needs code that does not come with onnxruntime, names other
            files of this machine or has sizes that no memory holds; or if its inputs and outputs are
            not one channel in and the heads of the setup out.
        """
        given = self._given()
        taken = {name: self._taken(name, heads, given.axes) for name in heads}
        context = self._used_context(given, taken)
        smallest = [
            only or (factor + 2 * (side + cut)) for only, factor, side, cut in
            zip(given.voxels(), self.tile_factor or (1, 1, 1), context, self.crop, strict=True)
        ]
        # Before a session, which computes what does not depend on the input while it is made.
        per_voxel = self._bytes_per_voxel(given, smallest)
        return OnnxModule(
            _session(self._file), given, taken, lost=context, crop=self.crop,
            tile_factor=self.tile_factor, bytes_per_voxel=per_voxel,
        )

    def _given(self) -> Given:
        """Return the only input of the graph: one channel of intensities."""
        inputs = self._file.inputs()
        if len(inputs) != 1:
            raise ConfigError(
                f"{self.file} has {len(inputs)} inputs ({', '.join(v.name for v in inputs)}), but a "
                "network here gets one: raw. Export it with the others fixed."
            )
        shape = shape_of(inputs[0])
        given = Given(inputs[0].name, self._axes_of(len(shape)), shape, self._dtype(inputs[0]))
        if given.size("c") not in (1, None):
            raise ConfigError(
                f"{self.file} wants {given.size('c')} channels (input {given.name!r}, shape "
                f"{_said(shape)}, axes {given.axes}), but raw is one channel of intensities. Use a "
                "network for grey images, or say with `network.axes` which axis is which."
            )
        return given

    def _axes_of(self, rank: int) -> str:
        axes = self.axes or _USUAL_AXES.get(rank)
        if axes is None or len(axes) != rank:
            said = f"`network.axes` is {axes!r}" if axes else "that is not a usual number here"
            raise ConfigError(
                f"The input of {self.file} has {rank} axes, but {said}. Say with "
                '`network.axes` which they are: "nczyx" are batch, channel, z, y and x.'
            )
        return axes

    def _dtype(self, value: Any) -> str:
        from onnx import TensorProto

        name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        if name not in _DTYPES:
            raise ConfigError(
                f"The input {value.name!r} of {self.file} is of {name}, but raw is scaled to "
                "floating point numbers. Export the network with a float input."
            )
        return _DTYPES[name]

    def _taken(self, head: str, heads: Mapping[str, Head], axes: str) -> Taken:
        """Find the output of the graph that a head takes, with its channels."""
        said = self.outputs.get(head, OnnxOutput())
        outputs = {value.name: value for value in self._file.model.graph.output}
        name = said.name or (next(iter(outputs)) if len(outputs) == 1 else head)
        unknown = sorted(self.outputs.keys() - heads.keys())
        if name not in outputs or unknown:
            what = f"no head {unknown[0]!r}" if unknown else f"no output {name!r}"
            raise ConfigError(
                f"`network.outputs` and the heads do not fit: there is {what}. {self.file} has the "
                f"outputs {', '.join(outputs)}, the setup the heads {', '.join(heads)}. Say with "
                '{"outputs": {HEAD: {"name": OUTPUT, "channels": [...]}}} which belong together.'
            )
        taken = Taken(name, said.axes or axes, said.channels, said.activation or "identity")
        self._check_channels(head, heads[head].channels, taken, shape_of(outputs[name]))
        return taken

    def _check_channels(
        self, head: str, wanted: int, taken: Taken, shape: tuple[int | None, ...]
    ) -> None:
        known = len(shape) == len(taken.axes) and "c" in taken.axes
        there = shape[taken.axes.index("c")] if known else None
        chosen = there if taken.channels is None else len(taken.channels)
        beyond = taken.channels and there is not None and max(taken.channels) >= there
        if beyond or (chosen is not None and chosen != wanted):
            raise ConfigError(
                f"The head {head!r} has {wanted} channels, but the output {taken.name!r} of "
                f"{self.file} has {there if there is not None else 'some'}, of which "
                f"{'all' if taken.channels is None else list(taken.channels)} are taken. Choose with "
                f"`network.outputs.{head}.channels`, counted from 0, or correct the head."
            )

    def _used_context(self, given: Given, taken: Mapping[str, Taken]) -> Triple:
        """Return the context: as stated, else as the sizes in the file say."""
        found = {context for name in taken if (context := self._stated_context(given, taken[name]))}
        if self.context is None and len(found) == 1:
            return found.pop()
        if len(found) > 1 or (found and self.context not in found):
            raise ConfigError(
                f"`network.context` is {self.context}, but by the sizes of inputs and outputs that "
                f"{self.file} states it is {' or '.join(map(str, sorted(found)))} voxels per side "
                "(zyx). The prediction would be in the wrong place; leave `context` out, or correct it."
            )
        return triple(self.context or (0, 0, 0))

    def _stated_context(self, given: Given, taken: Taken) -> Triple | None:
        (output,) = (v for v in self._file.model.graph.output if v.name == taken.name)
        shape = shape_of(output)
        if len(shape) != len(taken.axes):
            return None
        left = Given(taken.name, taken.axes, shape).voxels()
        lost = []
        for axis, before, after in zip("zyx", given.voxels(), left, strict=True):
            if axis == "z" and "z" not in given.axes:
                lost.append(0)
            elif before is None or after is None:
                return None
            else:
                lost.append(before - after)
        if any(n < 0 or n % 2 for n in lost):
            raise ConfigError(
                f"{self.file} makes {_said(shape)} of {_said(given.shape)} ({given.axes}): its "
                "output is not the input less as many voxels on both sides, so its place is not "
                "known. Networks that change the resolution cannot be used."
            )
        return triple(n // 2 for n in lost)

    def _bytes_per_voxel(self, given: Given, smallest: list[int]) -> float:
        sizes = dict(zip("zyx", smallest, strict=True)) | {"n": 1, "c": 1}
        shape = [sizes[axis] for axis in given.axes]
        largest = self._file.largest_bytes(shape)
        if largest > MOST_BYTES:
            raise ConfigError(
                f"{self.file} makes a tensor of {largest / 2**30:.3g} GiB of a tile of {smallest} "
                "voxels (zyx), which no machine should be asked for."
            )
        voxels = 1
        for axis in "zyx":
            voxels *= sizes[axis] if axis in given.axes else 1
        # Input and output of a layer, and features kept for the way up, as for networks of torch.
        return 5 * largest / voxels


def _session(file: OnnxFile) -> Any:
    """Make what runs the graph, with as many threads as torch has here."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the core from those that read and write blocks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(file.content(), options, providers=providers)
    except Exception as error:  # onnxruntime has an exception for every kind of failure
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"onnxruntime {onnxruntime.__version__} cannot run {file.path}: {reason}. Export the "
            "network for an older opset, or install a newer onnxruntime."
        ) from error


def _said(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
