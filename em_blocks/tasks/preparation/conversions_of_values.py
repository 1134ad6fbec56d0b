"""Conversions of the values of voxels."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from em_blocks.config import StrictModel
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.kernels.images.conversions import (
    inverted,
    misfit,
    relabelled,
    rgb_to_grey,
    rgb_to_ids,
    scaled,
)
from em_blocks.tasks.preparation.contrast_options import ValueRange
from em_blocks.tasks.preparation.image import Conversion, Image

DtypeName = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"
]


class Invert(Conversion):
    """Turn dark into bright: the largest value of the dtype minus each value."""

    kind: Literal["invert"]

    def applied(self, image: Image) -> Image:
        if image.dtype.kind != "u":
            raise ConfigError(
                f'The conversion "invert" takes unsigned integers, but {image.name} holds {image.dtype} '
                "at that point, which says no largest value. Put a conversion \"dtype\" with a "
                "'mapping' before."
            )
        return image.changed(attributes={}, read=lambda box: inverted(image.read(box)))


class Mapping(StrictModel):
    """A linear map of values."""

    source: ValueRange = Field(description="Range of the values that are there.")
    target: ValueRange = Field(description="Range that it is mapped to, e.g. [0, 255] for uint8.")
    clip: bool = Field(
        False, description="Whether values beyond the range become its ends; else they are an error."
    )


class Dtype(Conversion):
    """Store values as another type: as they are, or by a linear map, rounded for integers."""

    kind: Literal["dtype"]
    dtype: DtypeName = Field(description="Type of the result.")
    mapping: Mapping | None = Field(
        None, description="How values change. Default: not at all; one that does not fit is an error."
    )

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        if self.mapping and (wrong := misfit(np.array(self.mapping.target), np.dtype(self.dtype))):
            raise ValueError(
                f"the range 'target' {self.mapping.target} ends at {wrong:g}, which is no {self.dtype}"
            )
        return self

    def applied(self, image: Image) -> Image:
        attributes = {"labels": True} if image.attributes.get("labels") and not self.mapping else {}
        return image.changed(
            dtype=np.dtype(self.dtype), attributes=attributes,
            read=lambda box: self._converted(image.read(box), image.name, box),
        )

    def _converted(self, values: np.ndarray, name: str, box: Box) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        if self.mapping is None:
            _require_fitting(values, dtype, name, box)
            return values.astype(dtype)
        source, target = self.mapping.source, self.mapping.target
        if not self.mapping.clip:
            _require_within(values, source, name, box)
        found = scaled(np.nan_to_num(values, nan=source[0]), source, target).clip(*target)
        return (found if dtype.kind == "f" else np.rint(found)).astype(dtype)


def _require_fitting(values: np.ndarray, dtype: np.dtype, name: str, box: Box) -> None:
    if (wrong := misfit(values, dtype)) is not None:
        raise ConfigError(
            f"{name} holds {wrong} in the voxels {box.offset} to {box.end} (zyx), which is no {dtype}: "
            'it would become another value. Choose a larger dtype, or state a "mapping" of '
            '{"source": [low, high], "target": [low, high]}, with "clip": true if values beyond may be '
            "cut."
        )


def _require_within(
    values: np.ndarray, source: tuple[float, float], name: str, box: Box
) -> None:
    outside = ~((values >= source[0]) & (values <= source[1]))
    if outside.any():
        raise ConfigError(
            f"{name} holds {values[outside][0]} in the voxels {box.offset} to {box.end} (zyx), outside "
            f"of the range {source} that is mapped. Choose a wider 'source', or set \"clip\": true, if "
            "values beyond may become its ends."
        )


class Relabel(Conversion):
    """Replace ids by a table."""

    kind: Literal["relabel"]
    table: dict[int, int] = Field(min_length=1, description="New id by old id.")
    others: Literal["keep", "zero"] = Field(
        "keep", description="What becomes of ids that are not in the table."
    )

    def applied(self, image: Image) -> Image:
        image.one_value_per_voxel(self.kind)
        if image.dtype.kind not in "ui":
            raise ConfigError(
                f'The conversion "relabel" takes ids, but {image.name} holds {image.dtype} at that '
                "point. Name a volume of labels."
            )
        limits = np.iinfo(image.dtype)
        wrong = [new for new in self.table.values() if not limits.min <= new <= limits.max]
        if wrong:
            raise ConfigError(
                f'The new id {wrong[0]} of "relabel" is no {image.dtype}, as {image.name} holds at that '
                'point. Put a conversion "dtype" before.'
            )
        return image.changed(attributes={"labels": True}, read=lambda box: relabelled(
            image.read(box), self.table, keep=self.others == "keep"
        ))


class RgbToIds(Conversion):
    """Read colours as ids of 24 bits, red * 65536 + green * 256 + blue, as VAST exports them."""

    kind: Literal["rgb_to_ids"]

    def applied(self, image: Image) -> Image:
        _require_colours(image, self.kind, ("uint8",))
        return image.changed(
            dtype=np.dtype(np.uint32), channels=None, attributes={"labels": True},
            read=lambda box: rgb_to_ids(image.read(box)),
        )


class RgbToGrey(Conversion):
    """Take the luminance of colours (ITU-R BT.601)."""

    kind: Literal["rgb_to_grey"]

    def applied(self, image: Image) -> Image:
        _require_colours(image, self.kind, ("uint8", "uint16"))
        return image.changed(
            channels=None, attributes={}, read=lambda box: rgb_to_grey(image.read(box))
        )


def _require_colours(image: Image, kind: str, dtypes: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless an image has red, green, blue and perhaps opacity."""
    if image.channels in (3, 4) and image.dtype.name in dtypes:
        return
    channels = "no channels" if image.channels is None else f"{image.channels} channels"
    raise ConfigError(
        f'The conversion "{kind}" takes 3 or 4 channels (red, green, blue, opacity) of '
        f"{' or '.join(dtypes)}, but {image.name} has {channels} of {image.dtype} at that point. Ingest "
        "the images with their colours, or leave the conversion out."
    )
