"""A network of ONNX as a torch module: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from em_blocks.errors import GeometryError
from em_blocks.geometry import Triple, triple
from em_blocks.nets.unet import ACTIVATIONS

AXES = "nczyx"


class Session(Protocol):
    """What runs the graph, as `onnxruntime.InferenceSession` does."""

    def run(self, names: Sequence[str], given: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...


class Given(NamedTuple):
    """The input of the graph.

    Attributes
    ----------
    name : str
    axes : str
        Its axes, of "nczyx", the slowest first. Without z, sections are passed one by one; a missing
        n or c has the size 1.
    shape : tuple of int or None
        Its sizes in that order; None where any size is taken.
    dtype : str
        Of numpy.
    """

    name: str
    axes: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def size(self, axis: str) -> int | None:
        """Return the only size that an axis can have; None if there are more."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def voxels(self) -> tuple[int | None, int | None, int | None]:
        """Return the sizes (z, y, x) of the input, None for any."""
        z = self.size("z") if "z" in self.axes else None
        return z, self.size("y"), self.size("x")


class Taken(NamedTuple):
    """What a head takes of the outputs of the graph: its name, its axes, channels (None: all).

    `activation` is applied to all channels of the output, before some are chosen.
    """

    name: str
    axes: str
    channels: tuple[int, ...] | None = None
    activation: str = "identity"  # a key of em_blocks.nets.unet.ACTIVATIONS


class OnnxModule(nn.Module):
    """A graph that runs elsewhere; it has no parameters and cannot be trained.

    Parameters
    ----------
    session : Session
    given : Given
    heads : mapping of name to `Taken`
    lost : (z, y, x)
        Voxels per side by which the input is larger than what the graph computes.
    crop : (z, y, x)
        Voxels per side of that which are not used.
    tile_factor : (z, y, x), optional
        See `em_blocks.nets.inference.TileNetwork`; without it values depend on their tile.
    bytes_per_voxel : float
        Peak memory of a pass, per input voxel.
    """

    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """What the graph computes in is part of the file."""

    def __init__(
        self, session: Session, given: Given, heads: Mapping[str, Taken], *, lost: Triple,
        crop: Triple = (0, 0, 0), tile_factor: Triple | None = None, bytes_per_voxel: float = 0.0,
    ):
        super().__init__()
        self._session, self._given, self._heads = session, given, dict(heads)
        self._lost, self._crop, self.bytes_per_voxel = lost, crop, bytes_per_voxel
        self.context = triple(a + b for a, b in zip(lost, crop, strict=True))
        if tile_factor is not None:
            self.tile_factor = tile_factor

    def check_tile(self, output_shape: Sequence[int]) -> None:
        """Raise `GeometryError` unless the graph gives tiles of `output_shape`: tried with zeros."""
        shape = triple(n + 2 * c for n, c in zip(output_shape, self.context, strict=True))
        self._check_fixed(shape, triple(output_shape))
        self.predict(torch.zeros(1, 1, *shape))

    def _check_fixed(self, shape: Triple, output: Triple) -> None:
        only = self._given.voxels()
        if any(n is not None and n != size for n, size in zip(only, shape, strict=True)):
            fitting = triple(
                size if n is None else n - 2 * c
                for n, size, c in zip(only, output, self.context, strict=True)
            )
            raise GeometryError(
                f"The network takes inputs of {_sizes(only)} voxels (zyx) only, which is an output tile "
                f"of {fitting} with {self.context} voxels of context per side, but the tile is "
                f"{output}. Use tile_shape {list(fitting)}, or a network with inputs of any size."
            )

    def predict(self, raw: Tensor, heads: Collection[str] | None = None) -> dict[str, Tensor]:
        """Compute the outputs of the graph for the heads of these names, (n, c, z, y, x) float32.

        Parameters
        ----------
        raw : (n, 1, z, y, x) tensor

        Raises
        ------
        GeometryError
            If the graph cannot take the tile, or returns another shape than raw less `context`.
        """
        wanted = {n: t for n, t in self._heads.items() if heads is None or n in heads}
        names = list(dict.fromkeys(taken.name for taken in wanted.values()))
        if not names:  # for a session that would mean all
            return {}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for batch in self._batches(raw.detach().cpu().numpy()):
            for name, values in zip(names, self._run(names, batch, raw), strict=True):
                parts[name].append(values)
        return {
            name: self._output(name, taken, parts[taken.name], raw).contiguous().to(raw.device)
            for name, taken in wanted.items()
        }

    def _batches(self, raw: np.ndarray) -> Iterator[np.ndarray]:
        """Yield inputs in the axes of the graph, as many at a time as it takes."""
        values = raw.astype(self._given.dtype, copy=False)
        if "z" not in self._given.axes:  # sections become the batch
            values = values.transpose(0, 2, 1, 3, 4).reshape(-1, 1, 1, *values.shape[3:])
        size = self._given.size("n") or len(values)
        for first in range(0, len(values), size):
            part = values[first : first + size]
            missing = size - len(part)  # the last batch is filled: the graph takes full ones only
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            yield np.ascontiguousarray(_to_axes(part, self._given.axes))

    def _run(self, names: list[str], batch: np.ndarray, raw: Tensor) -> list[np.ndarray]:
        try:
            return self._session.run(names, {self._given.name: batch})
        except Exception as error:  # onnxruntime has an exception for every kind of failure
            reason = " ".join(str(error).split())[:300]
            raise GeometryError(
                f"The network cannot compute an input of {tuple(raw.shape[2:])} voxels (zyx), context "
                f"included: {reason}. If its tiles have to be multiples of something, use a tile_shape "
                "with which the input is one."
            ) from error

    def _output(self, head: str, taken: Taken, parts: list[np.ndarray], raw: Tensor) -> Tensor:
        """Return the values of a head, (n, c, z, y, x)."""
        tiles, depth = len(raw), raw.shape[2]
        folded = "z" not in self._given.axes
        found = np.concatenate([_from_axes(part, taken.axes, head) for part in parts])
        found = found[: tiles * depth if folded else tiles]
        if folded:
            found = found[:, :, 0].reshape(tiles, depth, *found.shape[1:2], *found.shape[3:])
            found = found.transpose(0, 2, 1, 3, 4)
        self._check_shape(head, triple(found.shape[2:]), triple(raw.shape[2:]))
        z, y, x = (slice(c, n - c) for c, n in zip(self._crop, found.shape[2:], strict=True))
        values = ACTIVATIONS[taken.activation](torch.from_numpy(found[:, :, z, y, x]).float())
        return values if taken.channels is None else values[:, list(taken.channels)]

    def _check_shape(self, head: str, found: Triple, given: Triple) -> None:
        expected = triple(n - 2 * c for n, c in zip(given, self._lost, strict=True))
        if found == expected:
            return
        lost = [a - b for a, b in zip(given, found, strict=True)]
        even = all(n >= 0 and n % 2 == 0 for n in lost)
        advice = (
            f"Its `context` is {[n // 2 for n in lost]}: write that into `network` of config.json."
            if even else
            "Its sides differ, or it changes the resolution: em_blocks can only use networks whose "
            "output has the voxels of the input less as many on both sides. Try another tile_shape."
        )
        raise GeometryError(
            f"The network gives {found} voxels (zyx) of {head!r} for an input of {given}, but with "
            f"a context of {self._lost} per side it should be {expected}. Its values would land "
            f"in the wrong place. {advice}"
        )


def _to_axes(values: np.ndarray, axes: str) -> np.ndarray:
    """Bring (n, c, z, y, x) into the order of `axes`; those that are missing have the size 1."""
    kept = values[tuple(slice(None) if axis in axes else 0 for axis in AXES)]
    order = [axis for axis in AXES if axis in axes]
    return kept.transpose([order.index(axis) for axis in axes])


def _from_axes(values: np.ndarray, axes: str, head: str) -> np.ndarray:
    """Bring an output into the order (n, c, z, y, x)."""
    if values.ndim != len(axes):
        raise GeometryError(
            f"The network gives an array of {values.ndim} axes for {head!r}, shape {values.shape}, but "
            f"{len(axes)} were stated or assumed: {axes}. Say with `axes` of the output which they are."
        )
    ordered = values.transpose([axes.index(axis) for axis in AXES if axis in axes])
    return ordered[tuple(slice(None) if axis in axes else np.newaxis for axis in AXES)]


def _sizes(shape: Sequence[Any]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
