"""Data configs: JSON files that name data sets by nickname, as incasem has them.

Offsets and shapes are voxels there; the sources that are made of them count in nm.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from em_blocks.config import (
    LocalPath,
    RoiConfig,
    Shape3,
    StorePath,
    StrictModel,
    VoxelSize,
    read_json,
)
from em_blocks.errors import ConfigError
from em_blocks.geometry import triple
from em_blocks.models.normalization import NormalizationChoice
from em_blocks.models.sources import ClassLabels, DataSource, Name

ClassKey = PositiveInt | Name
_HDF5 = re.compile(r"\.(h5|hdf|hdf5)$", re.I)


class Region(StrictModel):
    """A region that is trained or measured on: all of it is output, context lies around it."""

    offset: tuple[int, int, int] = Field(
        description="First voxel (z, y, x), counted from the origin of the world."
    )
    shape: Shape3 = Field(description="Voxels (z, y, x).")

    def roi(self, voxel_size: VoxelSize) -> RoiConfig:
        """Return the region in nm."""
        offset, shape = (
            triple(n * size for n, size in zip(voxels, voxel_size, strict=True))
            for voxels in (self.offset, self.shape)
        )
        return RoiConfig(offset=offset, shape=shape)


class Painted(StrictModel):
    """Of which class a label volume is, and what its ids mean."""

    name: ClassKey = Field(description="The class, by its id or its name.")
    ids: tuple[NonNegativeInt, ...] | None = Field(
        None, description="Ids that are the class; default: all but 0 and `background`."
    )
    background: tuple[NonNegativeInt, ...] = Field(
        (), description="Ids that are certainly not of the class."
    )
    unpainted: Literal["background", "unknown"] | None = Field(
        None, description="Meaning of all other ids; default: `unpainted` of the data set."
    )


class DataSet(StrictModel):
    """One data set of a data config."""

    file: str = Field("", description="Container, from the folder of the data; all else lies in it.")
    voxel_size: VoxelSize = Field(description="nm (z, y, x), of raw.")
    offset: tuple[int, int, int] | None = Field(
        None, description="First voxel of the region (z, y, x), from the origin of the world."
    )
    shape: Shape3 | None = Field(None, description="Voxels of the region (z, y, x).")
    rois: Annotated[tuple[Region, ...], Field(min_length=1)] | None = Field(
        None, description="Several regions, instead of `offset` and `shape`."
    )
    raw: str
    labels: dict[str, ClassKey | Painted] = Field(
        {},
        description="Class of every label volume, by id or name; none: no class occurs here.",
    )
    absent: tuple[ClassKey, ...] = Field((), description="Classes that do not occur here.")
    unpainted: Literal["background", "unknown"] = Field(
        "background", description="Meaning of unpainted voxels (0): not of the class, or unknown."
    )
    mask: str | None = Field(None, description="Mask of the specimen.")
    metric_masks: tuple[str, ...] = Field((), description="Masks of the voxels that count in scores.")
    weight: PositiveFloat | None = Field(
        None, description="Relative share of the samples; default: the number of voxels."
    )
    normalization: NormalizationChoice | None = Field(
        None, description="How raw is scaled; default: as the setup says."
    )

    @model_validator(mode="after")
    def _has_a_region(self) -> Self:
        one = self.offset is not None and self.shape is not None
        if one == (self.rois is not None) or (self.offset is None) != (self.shape is None):
            raise ValueError("give either both `offset` and `shape`, or `rois` (voxels)")
        return self

    @property
    def regions(self) -> tuple[Region, ...]:
        """Return all regions."""
        if self.rois is not None:
            return self.rois
        assert self.offset is not None and self.shape is not None
        return (Region(offset=self.offset, shape=self.shape),)


class DataConfigFile(StrictModel):
    """Data sets by nickname."""

    data_sets: Annotated[dict[str, DataSet], Field(min_length=1)]


class DataConfig(StrictModel):
    """Sources from a data config, a file of data sets by nickname."""

    data: LocalPath = Field(description="JSON file of data sets by nickname.")
    classes: dict[str, Name] = Field(
        {}, description='Names of the class ids: {"1": "mitochondria"}; default: class_1, ...'
    )
    folder: StorePath | None = Field(
        None, description="Folder in which `file` of the data sets lies; default: that of `data`."
    )

    def sources(self) -> tuple[DataSource, ...]:
        """Read the file; `ConfigError` names everything that is wrong in it."""
        folder = self.data.parent
        values = DataConfigFile.from_dict(
            {"data_sets": _unique(self.data)}, folder=folder, source=str(self.data)
        )
        return tuple(
            self._source(nickname, data_set, self.folder or str(folder))
            for nickname, data_set in values.data_sets.items()
        )

    def _source(self, nickname: str, data_set: DataSet, folder: str) -> DataSource:
        def place(name: str) -> str:
            container = f"{folder}/{data_set.file}".rstrip("/")
            return f"{container}{':' if _HDF5.search(container) else '/'}{name}"

        classes = self._classes(nickname, data_set, place)
        absent = [self._named(key) for key in data_set.absent]
        if not data_set.labels and not absent:
            absent = self._all_names(nickname)
        metric = tuple(place(name) for name in data_set.metric_masks)
        voxels = sum(math.prod(region.shape) for region in data_set.regions)
        return DataSource(
            name=nickname,
            raw=place(data_set.raw),
            classes=classes or None,
            absent=tuple(absent) or None,
            specimen=None if data_set.mask is None else place(data_set.mask),
            metric_masks=metric or None,
            voxel_size=data_set.voxel_size,
            rois=tuple(region.roi(data_set.voxel_size) for region in data_set.regions),
            weight=data_set.weight or float(voxels),
            normalization=data_set.normalization,
        )

    def _classes(
        self, nickname: str, data_set: DataSet, place: Callable[[str], str]
    ) -> dict[str, ClassLabels]:
        classes: dict[str, ClassLabels] = {}
        for volume, said in data_set.labels.items():
            painted = said if isinstance(said, Painted) else Painted(name=said)
            name = self._named(painted.name)
            if name in classes:
                raise ConfigError(
                    f"{self.data}: two label volumes of {nickname!r} are of the class {name!r}, so it "
                    "is not clear which of them holds. Give each a class of its own, or merge the "
                    "volumes."
                )
            classes[name] = ClassLabels(
                volume=place(volume), ids=painted.ids, background=painted.background,
                unpainted=painted.unpainted or data_set.unpainted,
            )
        return classes

    def _named(self, key: int | str) -> str:
        return self.classes.get(str(key), f"class_{key}") if isinstance(key, int) else key

    def _all_names(self, nickname: str) -> list[str]:
        if not self.classes:
            raise ConfigError(
                f"{self.data}: {nickname!r} has no `labels`, so no class occurs in it, but it is not "
                'said which classes there are. Name them where the file is used: "classes": {"1": '
                '"mitochondria"}, or write `absent` in the data set.'
            )
        return list(self.classes.values())


def data_sources(value: Any, info: ValidationInfo) -> Any:
    """Replace a data config by its sources; a list of sources stays as it is."""
    if isinstance(value, Mapping):
        folder = (info.context or {}).get("folder")
        return DataConfig.from_dict(dict(value), folder=folder, source="the data config").sources()
    return value


Sources = Annotated[
    tuple[DataSource, ...],
    Field(min_length=1),
    BeforeValidator(data_sources, json_schema_input_type=tuple[DataSource, ...] | DataConfig),
]
"""Sources in a list, or those of a data config."""


def file_value(path: Path) -> list | dict:
    """Read a file as the value of a key that takes sources, such as training.validation.

    It holds such a value itself - sources in a list, or an object that names a data config - or is a
    data config.

    Raises
    ------
    ConfigError
        If it cannot be read, or is no JSON of one of these.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        values = read_json(path)  # says what is wrong
    if isinstance(values, list) or (isinstance(values, dict) and isinstance(values.get("data"), str)):
        return values
    return {"data": str(path.absolute())}


def _unique(path: Path) -> dict:
    """Read a JSON object; `ConfigError` also where a key is there twice, of which JSON drops one."""
    read_json(path)

    def checked(pairs: list[tuple[str, Any]]) -> dict:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigError(
                f"The data config {path} has the keys {twice} twice in one object, and only the last "
                "one would be read. Nicknames and label volumes must be unique: rename one of each."
            )
        return dict(pairs)

    return json.loads(path.read_text(), object_pairs_hook=checked)
