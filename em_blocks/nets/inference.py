"""Apply a network to an array of any size, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from em_blocks.kernels.symmetry import Symmetry, undo_affinities
from em_blocks.kernels.tiles import Triple, blend_window, tile_offsets

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> torch.device:
    """The GPU this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision(device: torch.device) -> str:
    """bf16 where the device computes it in hardware, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


@dataclass(frozen=True)
class HeadFormat:
    """How one head's output is stored.

    Attributes
    ----------
    dtype : str
    scale : float or None
        Stored = output * scale, rounded and clipped for integers.
    neighborhood : list of (3,) int or None
        Voxel shifts of the channels, for heads of affinities.
    """

    dtype: str
    scale: float | None = None
    neighborhood: list[Triple] | None = None


class TilePredictor:
    """A network on a device, ready for arrays.

    Parameters
    ----------
    network : torch module
        With ``predict``, ``context`` and ``check_tile``, as `em_blocks.nets.unet.UNet`.
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
        self, network: torch.nn.Module, *, heads: dict[str, HeadFormat], tile_shape: Triple,
        scale: float, shift: float, precision: str = "fp32", batch_size: int = 1,
        overlap: Triple = (0, 0, 0), symmetries: Sequence[Symmetry] = (Symmetry(),),
        device: torch.device | None = None,
    ):
        self.device = device or best_device()
        self.network = network.to(self.device, memory_format=torch.channels_last_3d).eval()
        self.heads, self.tile_shape, self.context = heads, tile_shape, tuple(network.context)
        self.overlap, self.symmetries, self.batch_size = overlap, list(symmetries), batch_size
        self._scale, self._shift = scale, shift
        self.dtype = PRECISIONS[precision]

    def input_box(self, begin: Triple, end: Triple) -> tuple[Triple, Triple]:
        """First voxel and end of the raw that the tiles of a box need, voxels (z, y, x)."""
        offsets = tile_offsets(begin, end, self.tile_shape, self.overlap)
        first, last = offsets[0], offsets[-1]
        return (
            tuple(o - c for o, c in zip(first, self.context, strict=True)),
            tuple(
                o + t + c for o, t, c in zip(last, self.tile_shape, self.context, strict=True)
            ),
        )

    def predict(
        self, raw: np.ndarray, begin: Triple, end: Triple
    ) -> tuple[dict[str, np.ndarray], int]:
        """Outputs for a box.

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
        shape = tuple(e - b for b, e in zip(begin, end, strict=True))
        blended = any(self.overlap)
        sums = {} if blended else None
        weight = np.zeros(shape, np.float32) if blended else None
        window = blend_window(self.tile_shape, self.overlap) if blended else None
        outputs, saturated = {}, 0
        offsets = tile_offsets(begin, end, self.tile_shape, self.overlap)
        # Tile and raw both begin `context` voxels early, so tiles differ from each other
        # as their inputs do.
        corner = offsets[0]
        for first in range(0, len(offsets), self.batch_size):
            batch = offsets[first : first + self.batch_size]
            for name, tiles in self._tiles(raw, [_minus(o, corner) for o in batch]).items():
                for offset, tile in zip(batch, tiles, strict=True):
                    here, there = _overlap(_minus(offset, begin), self.tile_shape, shape)
                    if blended:
                        target = sums.setdefault(name, np.zeros((len(tile), *shape), np.float32))
                        target[(..., *there)] += (tile * window)[(..., *here)]
                        continue
                    if name not in outputs:
                        dtype = self.heads[name].dtype
                        outputs[name] = np.empty((len(tile), *shape), dtype)
                    stored, clipped = quantise(tile[(..., *here)], self.heads[name])
                    outputs[name][(..., *there)] = stored
                    saturated += clipped
            if blended:
                for offset in batch:
                    here, there = _overlap(_minus(offset, begin), self.tile_shape, shape)
                    weight[there] += window[here]
        for name, total in (sums or {}).items():
            outputs[name], clipped = quantise(total / weight, self.heads[name])
            saturated += clipped
        return outputs, saturated

    def _tiles(self, raw: np.ndarray, corners: list[Triple]) -> dict[str, np.ndarray]:
        """float32 (n, c, z, y, x) of every head for the tiles at `corners` of `raw`."""
        size = tuple(t + 2 * c for t, c in zip(self.tile_shape, self.context, strict=True))
        cut = np.stack(
            [raw[tuple(slice(c, c + s) for c, s in zip(k, size, strict=True))] for k in corners]
        )
        if len(self.symmetries) == 1:
            return self._forward(self.symmetries[0].apply(cut))
        means: dict[str, _Mean] = {}
        for symmetry in self.symmetries:
            for name, values in self._forward(symmetry.apply(cut)).items():
                mean = means.setdefault(name, _Mean(values.shape))
                neighborhood = self.heads[name].neighborhood
                for n, tile in enumerate(values):
                    mean.add(n, tile, symmetry, neighborhood)
        return {name: mean.values() for name, mean in means.items()}

    @torch.inference_mode()
    def _forward(self, cut: np.ndarray) -> dict[str, np.ndarray]:
        values = torch.from_numpy(np.ascontiguousarray(cut)).to(self.device, non_blocking=True)
        values = (values.float() * self._scale + self._shift)[:, None]
        values = values.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        ):
            outputs = self.network.predict(values)
        kept = {name: outputs[name].float().contiguous().cpu().numpy() for name in self.heads}
        for name, array in kept.items():
            if not np.isfinite(array).all():
                raise ArithmeticError(f"the network returned NaN or infinity in head {name!r}")
        return kept


class _Mean:
    """Running mean of tiles over symmetries; (n, c, z, y, x)."""

    def __init__(self, shape):
        self._sum = np.zeros(shape, np.float32)
        self._n = np.zeros(shape, np.float32)

    def add(self, n: int, tile: np.ndarray, symmetry: Symmetry, neighborhood) -> None:
        if neighborhood is None:
            self._sum[n] += symmetry.undo(tile)
            self._n[n] += 1
            return
        for channel, slices, values in undo_affinities(tile, symmetry, neighborhood):
            self._sum[(n, channel, *slices)] += values
            self._n[(n, channel, *slices)] += 1

    def values(self) -> np.ndarray:
        return self._sum / self._n


def quantise(values: np.ndarray, head: HeadFormat) -> tuple[np.ndarray, int]:
    """Values as stored, and how many did not fit.

    Parameters
    ----------
    values : float32 array
        Network output.
    head : HeadFormat

    Returns
    -------
    array of ``head.dtype``, and the number of clipped values
    """
    dtype = np.dtype(head.dtype)
    if head.scale is not None:
        values = values * np.float32(head.scale)
    if dtype.kind == "f":
        return values.astype(dtype), 0
    limits = np.iinfo(dtype)
    rounded = np.rint(values)
    clipped = np.clip(rounded, limits.min, limits.max)
    return clipped.astype(dtype), int(np.count_nonzero(clipped != rounded))


def _minus(a: Triple, b: Triple) -> Triple:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _overlap(
    offset: Triple, tile_shape: Triple, shape: Triple
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of a tile, and of the box that it lies in at `offset`, where both exist."""
    first = [max(0, o) for o in offset]
    last = [min(n, o + t) for o, t, n in zip(offset, tile_shape, shape, strict=True)]
    here = tuple(slice(a - o, b - o) for a, b, o in zip(first, last, offset, strict=True))
    return here, tuple(slice(a, b) for a, b in zip(first, last, strict=True))
