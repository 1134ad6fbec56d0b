"""What a config says of the maps that instances are made of."""

from __future__ import annotations

import itertools
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from em_blocks.config import StrictModel, VolumeRef
from em_blocks.kernels.instances.landscape import Levels
from em_blocks.tasks.objects.threshold_options import Channel, Probability

Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(ge=0)]

MAPS = ("foreground", "contour", "distance")
"""Keys of a config that name the maps."""

_CONTOUR, _DISTANCE = 0.4, 0.5
"""Of seeds, where a config has these maps and no thresholds."""


class CoreOptions(StrictModel):
    """Which voxels of seeds are cores."""

    foreground: Probability = Field(0.8, description="Lowest foreground of a core.")
    contour: Share | None = Field(None, description="Highest contour of a core. Default: any.")
    distance: Share | None = Field(None, description="Lowest distance of a core. Default: any.")


class SeedOptions(StrictModel):
    """Which voxels are seeds: every connected seed becomes an object of its own."""

    foreground: Probability = Field(0.8, description="Lowest foreground of a seed.")
    contour: Share | None = Field(
        None, description=f"Highest contour of a seed. Default: {_CONTOUR} where there is a contour map."
    )
    distance: Share | None = Field(
        None, description=f"Lowest distance of a seed. Default: {_DISTANCE} where there is such a map."
    )
    min_size: PositiveInt = Field(100, description="Voxels that a seed has at least; others are none.")
    neck_nm: PositiveFloat | None = Field(
        None, description="Seeds are cut where the mask is narrower than this, nm: what is wider on "
        "both sides becomes objects of their own. Default: no cut."
    )
    cores: CoreOptions | None = Field(
        None, description="A seed that has several connected cores of `min_size` voxels is replaced by "
        "these. Default: none is."
    )

    @model_validator(mode="after")
    def _one_kind_of_cores(self) -> Self:
        if self.neck_nm is not None and self.cores is not None:
            raise ValueError(
                "seeds.neck_nm and seeds.cores both say what the cores of seeds are; leave one out"
            )
        return self

    @property
    def has_cores(self) -> bool:
        """Whether seeds are replaced by what lies deep in them."""
        return self.neck_nm is not None or self.cores is not None


class MapOptions(StrictModel):
    """The maps, and how they become mask and seeds."""

    foreground: VolumeRef | None = Field(
        None, description="Map of how surely a voxel is of an object: uint8, uint16 with the attribute "
        "scale, or float in 0..1. Maps are used in steps of 1/255."
    )
    contour: VolumeRef | None = Field(None, description="Map of the contours of objects, likewise.")
    distance: VolumeRef | None = Field(
        None, description="Map of the distance to the border of an object, 1 in its middle; what is "
        "below 0 counts as 0."
    )
    channels: dict[str, Channel] = Field(
        {}, description='Channel of each map that has several, by number or class: {"foreground": 0, '
        '"contour": "rim"}. Maps may be channels of one volume.'
    )
    smooth_nm: tuple[Length, Length, Length] = Field(
        (0.0, 0.0, 0.0), description="Standard deviation, nm (z, y, x), of a Gaussian that smooths maps."
    )
    threshold: Probability = Field(0.5, description="Lowest foreground of a voxel of an object.")
    seeds: SeedOptions = Field(SeedOptions(), description="Which voxels objects grow from.")

    @model_validator(mode="after")
    def _seeds_lie_in_the_mask(self) -> Self:
        if self.seeds.foreground < self.threshold:
            raise ValueError(
                f"seeds.foreground {self.seeds.foreground:g} is below threshold {self.threshold:g}: "
                "seeds would lie outside of the objects that grow from them. Use at least the threshold"
            )
        return self

    @model_validator(mode="after")
    def _every_threshold_has_its_map(self) -> Self:
        of_seeds = {"seeds": self.seeds, "seeds.cores": self.seeds.cores}
        for name, (where, options) in itertools.product(("contour", "distance"), of_seeds.items()):
            value = options and getattr(options, name)
            if getattr(self, name) is None and value is not None:
                raise ValueError(
                    f"{where}.{name} is {value:g}, but there is no map {name!r} to "
                    f"compare it with; name the volume by the key {name!r}, or leave the threshold out"
                )
        if unknown := sorted(name for name in self.channels if getattr(self, name, None) is None
                             or name not in MAPS):
            raise ValueError(
                f"channels names {', '.join(unknown)}, but the maps of this config are "
                f"{', '.join(self.maps)}; correct the names"
            )
        return self

    @property
    def maps(self) -> dict[str, VolumeRef]:
        """The maps that there are, by their keys."""
        return {name: value for name in MAPS if (value := getattr(self, name)) is not None}

    @property
    def levels(self) -> Levels:
        """The thresholds in bytes."""
        seeds = self.seeds
        contour = _CONTOUR if seeds.contour is None else seeds.contour
        distance = _DISTANCE if seeds.distance is None else seeds.distance
        return Levels.of(
            self.threshold, foreground=seeds.foreground,
            contour=None if self.contour is None else contour,
            distance=None if self.distance is None else distance,
        )

    @property
    def core_levels(self) -> Levels | None:
        """The thresholds of cores in bytes; None where there are no such."""
        cores = self.seeds.cores
        return cores and Levels.of(
            self.threshold, foreground=cores.foreground, contour=cores.contour, distance=cores.distance
        )
