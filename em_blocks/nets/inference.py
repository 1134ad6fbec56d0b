"""Apply a network to an array of any size, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from em_blocks.geometry import Triple, triple
from em_blocks.kernels.transforms.symmetry import Part, Symmetry, undo_all
from em_blocks.kernels.transforms.tiles import blend_window, tile_offsets

Slices = tuple[slice, slice, slice]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TileNetwork(Protocol):
    """A torch module whose output is `context` voxels (z, y, x) smaller than its input, per side.

    One whose values do not depend on their tile says by `tile_factor` by which steps, in voxels, tiles
    may be moved. One that computes elsewhere states its `bytes_per_voxel`, and its `precisions` if it
    has only some.
    """

    @property
    def context(self) -> Triple: ...
    @property
    def tile_factor(self) -> Triple: ...
    def predict(self, raw: Tensor, heads: Collection[str] | None = None) -> dict[str, Tensor]:
        """Compute the activated output of the heads of these names, (n, c, z, y, x)."""

    def eval(self) -> Self: ...
    def modules(self) -> Iterator[torch.nn.Module]: ...
    def to(self, *args: Any, **kwargs: Any) -> Self: ...


def best_device() -> torch.device:
    """Return the GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware_precisions(device: torch.device) -> list[str]:
    """List the precisions that the device computes in hardware, fp32 first."""
    if device.type == "cuda":
        return ["fp32", "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"]
    # torch has no public question for this; without an answer fp32 is right, only slower.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return ["fp32", "bf16"] if supported() else ["fp32"]


def device_name(device: torch.device) -> str:
    """Name the model of a GPU, or the instructions of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}"


def bytes_per_voxel(network: TileNetwork) -> float:
    """Estimate the peak memory of a pass, bytes per input voxel, with the smallest tile.

    Five times the largest activation, as measured with the shipped networks (64^3 and 64x128^2 output
    voxels, fp32): input and output of a layer, features kept for the way up, the convolution's own.
    """
    if (stated := getattr(network, "bytes_per_voxel", None)) is not None:
        return stated
    sizes: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    shape = [f + 2 * c for f, c in zip(network.tile_factor, network.context, strict=True)]
    with torch.inference_mode():
        network.eval().predict(torch.zeros(1, 1, *shape))
    for hook in hooks:
        hook.remove()
    return 5 * 4 * max([*sizes, prod(shape)]) / prod(shape)


@dataclass(frozen=True)
class HeadFormat:
    """Storage of one head's output.

    Attributes
    ----------
    dtype : str
    scale : float or None
        Stored = output * scale, rounded and clipped for integers.
    inverse : callable
        ``inverse(values, symmetry)`` brings the output (c, z, y, x) of a transformed volume back to the
        original one.
    """

    dtype: str
    scale: float | None = None
    inverse: Callable[[np.ndarray, Symmetry], Iterable[Part]] = undo_all


class TilePredictor:
    """A network on a device, ready for arrays.

    Parameters
    ----------
    network : TileNetwork
        For example an `em_blocks.nets.unet.UNet`.
    heads : dict of str to HeadFormat
        Outputs to keep.
    tile_shape : (3,) int
        Output voxels (z, y, x) of one pass.
    scale, shift : float
        The network sees ``raw * scale + shift``.
    precision : {"fp32", "bf16", "fp16"}
    batch_size : int
        Tiles in one pass.
    overlap : (3,) int
        Voxels that neighbouring tiles share and blend; (0, 0, 0) for valid networks.
    symmetries : list of Symmetry
        Outputs are averaged over them.
    """

    def __init__(
        self, network: TileNetwork, *, heads: dict[str, HeadFormat], tile_shape: Triple,
        scale: float, shift: float, precision: str = "fp32", batch_size: int = 1,
        overlap: Triple = (0, 0, 0), symmetries: Sequence[Symmetry] = (Symmetry(),),
        device: torch.device | None = None,
    ):
        self.device = device or best_device()
        self.network = network.to(self.device, memory_format=torch.channels_last_3d).eval()
        self.heads, self.tile_shape, self.context = heads, tile_shape, triple(network.context)
        self.overlap, self.batch_size = overlap, batch_size
        # The mirror image along z of one section is that section: not worth a second pass.
        flat = tile_shape[0] + 2 * self.context[0] == 1
        self.symmetries = [s for s in symmetries if not (flat and s.mirrored[0])]
        self._scale, self._shift = scale, shift
        self.dtype = PRECISIONS[precision]

    def input_box(self, begin: Triple, end: Triple) -> tuple[Triple, Triple]:
        """Return the first voxel and the end of the raw that the tiles of a box need (z, y, x)."""
        offsets = tile_offsets(begin, end, self.tile_shape, self.overlap)
        last = zip(offsets[-1], self.tile_shape, self.context, strict=True)
        return _minus(offsets[0], self.context), triple(o + t + c for o, t, c in last)

    def predict(
        self, raw: np.ndarray, begin: Triple, end: Triple
    ) -> tuple[dict[str, np.ndarray], int]:
        """Compute the outputs for a box.

        Parameters
        ----------
        raw : (z, y, x) array
            The voxels of `input_box(begin, end)`.
        begin, end : (3,) int
            The box in voxels of the volume (z, y, x).

        Returns
        -------
        dict of (c, z, y, x) arrays in the dtype of each head, and the number of
        values that did not fit the dtype

        Raises
        ------
        ArithmeticError
            If the network returns NaN or infinity.
        """
        shape = _minus(end, begin)
        canvas = (
            _Blended(shape, self.heads, blend_window(self.tile_shape, self.overlap))
            if any(self.overlap)
            else _Plain(shape, self.heads)
        )
        offsets = tile_offsets(begin, end, self.tile_shape, self.overlap)
        for offset, tile in self._tiles(raw, offsets):
            canvas.add(tile, *_overlap(_minus(offset, begin), self.tile_shape, shape))
        return canvas.finish()

    def _tiles(
        self, raw: np.ndarray, offsets: list[Triple]
    ) -> Iterator[tuple[Triple, dict[str, Tensor]]]:
        """Yield every tile with its heads, float32 (c, z, y, x) on the device.

        A batch is started before the one before it is yielded, so that a GPU computes
        while its last results are copied and stored.
        """
        batches = [
            offsets[n : n + self.batch_size] for n in range(0, len(offsets), self.batch_size)
        ]
        # Tile and raw both begin `context` voxels early, so tiles differ from each other
        # as their inputs do.
        started: list[tuple[list[Triple], dict[str, Tensor]]] = []
        for batch in batches:
            # A batch is always full: what a tile gives depends, in the last digit, on the size of
            # its batch, and must not depend on how many tiles a block has.
            full = batch + batch[-1:] * (self.batch_size - len(batch))
            started.append((batch, self._batch(raw, [_minus(o, offsets[0]) for o in full])))
            if len(started) == 2:
                yield from _unbatched(*started.pop(0))
        for batch, outputs in started:
            yield from _unbatched(batch, outputs)

    def _batch(self, raw: np.ndarray, corners: list[Triple]) -> dict[str, Tensor]:
        """Compute float32 (n, c, z, y, x) of every head for the tiles at `corners` of `raw`."""
        size = tuple(t + 2 * c for t, c in zip(self.tile_shape, self.context, strict=True))
        cut = np.stack(
            [raw[tuple(slice(c, c + s) for c, s in zip(k, size, strict=True))] for k in corners]
        )
        if len(self.symmetries) == 1:
            return self._forward(self.symmetries[0].apply(cut))
        means: dict[str, _Mean] = {}
        for symmetry in self.symmetries:
            for name, values in self._forward(symmetry.apply(cut)).items():
                tiles = values.cpu().numpy()
                mean = means.setdefault(name, _Mean(symmetry.undo(tiles).shape))
                mean.add(tiles, symmetry, self.heads[name])
        return {name: torch.from_numpy(mean.values()) for name, mean in means.items()}

    def pass_once(self, raw: np.ndarray) -> None:
        """Pass (n, z, y, x) tiles with their context through the network; drop the results.

        Raises
        ------
        ArithmeticError
            If the network returns NaN or infinity: the precision cannot hold its values.
        """
        outputs = self._forward(raw)
        if not all(bool(torch.isfinite(values).all()) for values in outputs.values()):
            raise ArithmeticError("the network returned NaN or infinity")

    @torch.inference_mode()
    def _forward(self, cut: np.ndarray) -> dict[str, Tensor]:
        # A copy, as mirrored axes of one voxel have a negative stride but count as contiguous.
        values = torch.from_numpy(np.array(cut, order="C")).to(self.device, non_blocking=True)
        values = (values.float() * self._scale + self._shift)[:, None]
        values = values.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        ):
            outputs = self.network.predict(values, list(self.heads))
        return {name: outputs[name].float() for name in self.heads}


def _unbatched(
    batch: list[Triple], outputs: dict[str, Tensor]
) -> Iterator[tuple[Triple, dict[str, Tensor]]]:
    for n, offset in enumerate(batch):
        yield offset, {name: values[n] for name, values in outputs.items()}


class _Plain:
    """Tiles side by side, quantised on the device: fewer bytes to copy."""

    def __init__(self, shape: Triple, heads: dict[str, HeadFormat]):
        self._shape, self._heads = shape, heads
        self._arrays: dict[str, np.ndarray] = {}
        self._saturated = 0

    def add(self, tile: dict[str, Tensor], here: Slices, there: Slices) -> None:
        for name, values in tile.items():
            stored, clipped = quantise(values[(..., *here)], self._heads[name])
            if name not in self._arrays:
                shape = (len(values), *self._shape)
                self._arrays[name] = np.empty(shape, self._heads[name].dtype)
            self._arrays[name][(..., *there)] = stored
            self._saturated += clipped

    def finish(self) -> tuple[dict[str, np.ndarray], int]:
        return self._arrays, self._saturated


class _Blended:
    """Overlapping tiles, averaged with the weights of a window."""

    def __init__(self, shape: Triple, heads: dict[str, HeadFormat], window: np.ndarray):
        self._shape, self._heads, self._window = shape, heads, window
        self._sums: dict[str, np.ndarray] = {}
        self._weight = np.zeros(shape, np.float32)

    def add(self, tile: dict[str, Tensor], here: Slices, there: Slices) -> None:
        for name, values in tile.items():
            total = self._sums.setdefault(
                name, np.zeros((len(values), *self._shape), np.float32)
            )
            total[(..., *there)] += (values.cpu().numpy() * self._window)[(..., *here)]
        self._weight[there] += self._window[here]

    def finish(self) -> tuple[dict[str, np.ndarray], int]:
        arrays, saturated = {}, 0
        for name, total in self._sums.items():
            arrays[name], clipped = quantise(
                torch.from_numpy(total / self._weight), self._heads[name]
            )
            saturated += clipped
        return arrays, saturated


class _Mean:
    """Running mean of tiles over symmetries; (n, c, z, y, x)."""

    def __init__(self, shape: Sequence[int]):
        self._sum, self._n = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, tiles: np.ndarray, symmetry: Symmetry, head: HeadFormat) -> None:
        for n, tile in enumerate(tiles):
            for index, values in head.inverse(tile, symmetry):
                self._sum[n][index] += values
                self._n[n][index] += 1

    def values(self) -> np.ndarray:
        return self._sum / self._n


def quantise(values: Tensor, head: HeadFormat) -> tuple[np.ndarray, int]:
    """Round values as they are stored, and count those that do not fit.

    Parameters
    ----------
    values : float32 tensor
        Network output.
    head : HeadFormat

    Returns
    -------
    array of ``head.dtype``, and the number of clipped values

    Raises
    ------
    ArithmeticError
        If a value is NaN or infinite: no integer stands for it.
    """
    if not torch.isfinite(values).all():
        raise ArithmeticError("the network returned NaN or infinity")
    if head.scale is not None:
        values = values * head.scale
    dtype = np.dtype(head.dtype)
    if dtype.kind == "f":
        return values.cpu().numpy().astype(dtype), 0
    limits = np.iinfo(dtype)
    rounded = values.round()
    clipped = rounded.clamp(limits.min, limits.max)
    saturated = int((clipped != rounded).sum())
    return clipped.to(getattr(torch, head.dtype)).cpu().numpy(), saturated


def _minus(a: Triple, b: Triple) -> Triple:
    return triple(x - y for x, y in zip(a, b, strict=True))


def _overlap(
    offset: Triple, tile_shape: Triple, shape: Triple
) -> tuple[Slices, Slices]:
    """Find the slices of a tile, and of the box that it lies in at `offset`, where both exist."""
    first = [max(0, o) for o in offset]
    last = [min(n, o + t) for o, t, n in zip(offset, tile_shape, shape, strict=True)]
    here = triple(slice(a - o, b - o) for a, b, o in zip(first, last, offset, strict=True))
    return here, triple(slice(a, b) for a, b in zip(first, last, strict=True))
