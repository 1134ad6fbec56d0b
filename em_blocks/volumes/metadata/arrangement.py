"""Arrangement of stored axes as (z, y, x) or (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Triple, triple
from em_blocks.volumes.metadata.claims import SPACE, Axes


@dataclass(frozen=True)
class Arrangement:
    """Mapping of the axes of a stored array to those of a volume.

    Attributes
    ----------
    axes : tuple of str
        Of the stored array, as numpy shows it.
    kept : tuple of str
        Those of the volume: z, y, x, and c before them if there are channels.
    """

    axes: Axes
    kept: Axes

    @classmethod
    def of(
        cls, axes: Axes, shape: Sequence[int], *, keeps_channel: bool, source: str
    ) -> Arrangement:
        """Return the arrangement for an array of this shape; single points in time are dropped.

        Parameters
        ----------
        keeps_channel : bool
            Whether a single channel has an axis.

        Raises
        ------
        VolumeError
            If there is more than one point in time.
        """
        length = dict(zip(axes, shape, strict=True))
        if length.get("t", 1) != 1:
            raise VolumeError(
                f"{source} has {length['t']} points in time (its axes are {list(axes)}, its shape is "
                f"{tuple(shape)}), but a volume is one of them. Store the one to be read as an array of "
                "its own."
            )
        has_channels = "c" in axes and (keeps_channel or length["c"] != 1)
        return cls(axes, (*(["c"] if has_channels else []), *SPACE))

    @property
    def dropped(self) -> list[int]:
        """Positions of the stored axes that the volume has not."""
        return [n for n, axis in enumerate(self.axes) if axis not in self.kept]

    @property
    def order(self) -> list[int]:
        """Position of every axis of the volume among the stored ones that are kept."""
        left = [axis for axis in self.axes if axis in self.kept]
        return [left.index(axis) for axis in self.kept]

    def spatial(self, values: Sequence[int]) -> Triple:
        """Return the values of stored axes as (z, y, x)."""
        return triple(values[self.axes.index(axis)] for axis in SPACE)

    def index(self, box: Box) -> tuple:
        """Return the index that selects the voxels of a box (and all channels) from the stored array."""
        chosen = dict(zip(SPACE, box.slices, strict=True))
        return tuple(
            chosen.get(axis, slice(None)) if axis in self.kept else 0 for axis in self.axes
        )
