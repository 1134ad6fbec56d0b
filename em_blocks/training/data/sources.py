"""Training data: raw, labels, masks and synapses from stored volumes or the phantom generator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame, Nm3
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.models.config import SetupConfig
from em_blocks.models.sources import DataSource
from em_blocks.models.truth import ANNOTATED, BACKGROUND, LABELS, METRIC, UNKNOWN
from em_blocks.training.data.alignment import (
    check_stated_size,
    check_voxel_size,
    placement,
    used_boxes,
)
from em_blocks.training.data.normalization import measured_normalization
from em_blocks.training.data.raw_sample import RawSample
from em_blocks.training.data.reading.states import AllOf, ClassVoxels, Constant, Within
from em_blocks.training.data.reading.voxels import (
    Slices,
    StoredVoxels,
    Voxels,
    open_ids,
    open_mask,
    open_raw,
)
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses

NONE: Mapping[str, Voxels] = MappingProxyType({})


class TrainingData(NamedTuple):
    """One used box of an opened source. Voxels are counted from the first one of raw."""

    name: str
    raw: Voxels
    labels: Mapping[str, Voxels]  # ids, 0 unknown; of classes what is known, as in `Truth`
    begin: tuple[int, int, int]  # used voxels
    end: tuple[int, int, int]
    weight: float
    synapses: Synapses | None = None  # nm from the corner of the first voxel of raw
    masks: Mapping[str, Voxels] = NONE
    is_scaled: bool = False  # raw, to be what the setup is for
    data_set: str = ""  # name of the source, of which this may be one ROI
    classes: frozenset[str] = frozenset()  # of the labels, those of what is known, not of ids

    @property
    def box(self) -> Slices:
        """The used voxels."""
        return tuple(slice(first, last) for first, last in zip(self.begin, self.end, strict=True))

    def slabs(self) -> Iterator[Slices]:
        """Parts of the box as thick as a chunk of labels: all fits into memory, each is read once."""
        thick = getattr(next(iter(self.labels.values())), "chunk_shape", (1,))[0]
        for z in range(self.begin[0], self.end[0], thick):
            yield (slice(z, min(z + thick, self.end[0])), *self.box[1:])


class _Content(NamedTuple):
    name: str
    frame: Frame
    raw: Voxels
    labels: dict[str, Voxels]
    masks: dict[str, Voxels]
    synapses: Synapses | None
    common: Box  # voxels that all volumes have
    classes: frozenset[str] = frozenset()
    specimen: Voxels | None = None


def open_sources(
    sources: Sequence[DataSource], config: SetupConfig, *, validation: bool = False,
    check: bool = True,
) -> list[TrainingData]:
    """Open or generate the sources of a setup, as many as they have ROIs.

    Raw of sources that have a `normalization` is scaled so that the setup's own one makes of it
    what the source asks for. Classes that heads learn and a source does not name are unknown there.
    Errors are those of `open_source`; `ConfigError` also if intensities cannot be measured.

    Parameters
    ----------
    validation : bool
        Whether scores are measured on them, so that `metric_masks` are read.
    check : bool
        Whether all values are read to find those that no training can use.
    """
    return [
        one for source in sources
        for one in _opened(source, config, validation=validation, check=check)
    ]


def _opened(source: DataSource, config: SetupConfig, **options: bool) -> list[TrainingData]:
    annotated = any(f"masks/{ANNOTATED}" in head.needs for head in config.heads.values())
    data = open_source(source, config.voxel_size, annotated=annotated, **options)
    if source.normalization is not None:
        raw = _scaled(source, data[0].raw, config)
        data = [one._replace(raw=raw, is_scaled=True) for one in data]
    return [_with_classes(one, classes_of(config)) for one in data]


def classes_of(config: SetupConfig) -> list[str]:
    """Name the classes that the heads of a setup learn."""
    return list(dict.fromkeys(
        name for head in config.heads.values() for name in getattr(head, "classes", ())
    ))


def _with_classes(data: TrainingData, names: Sequence[str]) -> TrainingData:
    """Add the classes that heads learn and a source does not know."""
    if ids := sorted(set(names) & data.labels.keys() - data.classes):
        raise ConfigError(
            f"{data.name} has {ids} among its `labels`, where every id is an object, but a head learns "
            f"them as classes. Name them in `classes` of the source: "
            f'{{"{ids[0]}": {{"volume": PATH}}}}, which says where they are annotated.'
        )
    unknown = {
        name: Constant(UNKNOWN, data.raw.shape) for name in names if name not in data.labels
    }
    if not unknown:
        return data
    return data._replace(labels={**data.labels, **unknown}, classes=data.classes | unknown.keys())


def _scaled(source: DataSource, raw: Voxels, config: SetupConfig) -> Voxels:
    volume = Volume.open(source.raw)
    sample = RawSample(volume, volume.box)
    wanted = measured_normalization(sample, volume, config, source.normalization)
    setup = config.normalization
    return raw.scaled(
        wanted["scale"] / setup.scale, (wanted["shift"] - setup.shift) / setup.scale
    )


def open_source(
    source: DataSource, voxel_size: Nm3, *, validation: bool = False, check: bool = True,
    annotated: bool = False,
) -> list[TrainingData]:
    """Open or generate one source and check that it fits.

    Parameters
    ----------
    voxel_size : (3,) floats
        nm (z, y, x) that the setup is made for.
    validation : bool
        Whether `metric_masks` are read.
    check : bool
        Whether all values are read to find those that no training can use.
    annotated : bool
        Whether the mask `ANNOTATED` is read: all of a source that has none, but of its specimen only.

    Returns
    -------
    list of TrainingData
        One for every ROI of the source, else one.

    Raises
    ------
    ConfigError, VolumeError
        If a volume is missing or of another type than the network needs.
    IncompleteInputError
        If a run has not made all of it.
    GeometryError
        If volumes do not lie on one voxel grid or have nothing in common, the voxel size is another
        than that of the setup, or a used box is outside.
    """
    found = (
        _phantom(source, voxel_size) if source.phantom else _stored(source, voxel_size, validation)
    )
    if annotated:
        found = found._replace(masks=found.masks | {ANNOTATED: _annotated(found)})
    boxes = used_boxes(source, found.name, found.frame, found.raw.shape, found.common)
    total = sum(box.size for box in boxes)
    data = [
        TrainingData(
            found.name if len(boxes) == 1 else f"{found.name}, ROI {number}", found.raw, found.labels,
            box.offset, box.end, source.weight * (box.size / total), found.synapses, found.masks,
            data_set=found.name,
            classes=found.classes,
        )
        for number, box in enumerate(boxes, start=1)
    ]
    for one in data if check else ():
        _check_values(one)
    return data


def describe(data: TrainingData) -> dict:
    """Describe a source for the record of a run: name, used box, sha256 of the used voxels."""
    digest = hashlib.sha256()
    for slab in data.slabs():
        volumes = [data.raw[slab]]
        volumes += [labels[slab].astype("<u8") for labels in data.labels.values()]
        volumes += [mask[slab] for mask in data.masks.values()]
        for sections in zip(*volumes, strict=True):
            for section in sections:
                digest.update(np.ascontiguousarray(section))
    if data.synapses is not None:
        digest.update(np.concatenate([data.synapses.pre, data.synapses.post]).astype("<f8"))
    described = {
        "name": data.name,
        "begin": list(data.begin),
        "end": list(data.end),
        "weight": data.weight,
        "sha256": digest.hexdigest(),
    }
    names = {"labels": list(data.labels), "masks": list(data.masks)}
    usual = {"labels": [LABELS], "masks": []}
    return described | ({} if names == usual else names)


def _phantom(source: DataSource, voxel_size: Nm3) -> _Content:
    spec = source.phantom
    made = phantom(spec.shape, voxel_size=voxel_size, **spec.model_dump(exclude={"shape"}))
    synapses = made.synapses if spec.synapses_per_um3 else None
    whole = Box((0, 0, 0), made.raw.shape)
    return _Content(
        source.name or f"phantom of seed {spec.seed}", Frame(voxel_size), made.raw,
        {LABELS: made.neurons}, {}, synapses, whole,
    )


def _stored(source: DataSource, voxel_size: Nm3, validation: bool) -> _Content:
    raw = open_raw(source.raw, source.voxel_size)
    check_stated_size(raw, source.voxel_size)
    check_voxel_size(raw.path, raw.frame.voxel_size, voxel_size)
    place = _Places(raw)
    labels = {
        name: place(open_ids(said, raw)) for name, said in sorted(source.label_volumes.items())
    }
    masks = {name: place(open_mask(said)) for name, said in sorted((source.masks or {}).items())}
    classes = {
        name: ClassVoxels(place(open_ids(said.volume, raw)), said)
        for name, said in sorted((source.classes or {}).items())
    }
    classes |= {name: Constant(BACKGROUND, raw.shape) for name in source.absent or ()}
    labels |= classes
    specimen = None
    if source.specimen is not None:
        specimen = place(open_mask(source.specimen))
        labels = {name: Within(volume, specimen) for name, volume in labels.items()}
    if validation and source.metric_masks:
        masks[METRIC] = AllOf([place(open_mask(said)) for said in source.metric_masks])
    return _Content(
        source.name or "/".join(raw.path.split("/")[-2:]), raw.frame, raw, labels, masks,
        _synapses(source, raw.frame, voxel_size), place.common, frozenset(classes), specimen,
    )


def _annotated(found: _Content) -> Voxels:
    """Make the mask of the voxels whose instance is known."""
    mask = found.masks.get(ANNOTATED, Constant(1, found.raw.shape))
    return mask if found.specimen is None else Within(mask, found.specimen)


class _Places:
    """Bring volumes to the voxels of raw; `common` are those that all of them have."""

    def __init__(self, raw: StoredVoxels):
        self.raw, self.common = raw, Box((0, 0, 0), raw.shape)

    def __call__(self, volume: StoredVoxels) -> StoredVoxels:
        where = placement(self.raw, volume)
        self.common = self.common.intersect(where.covered(volume.shape))
        return volume.placed(where)


def _synapses(source: DataSource, raw: Frame, voxel_size: Nm3) -> Synapses | None:
    """Partners from a file, whose positions count from the world's origin.

    The result counts from the first voxel of raw, in voxels of the setup's size: where those of the
    data differ a little, sites would else drift away from what they mark.
    """
    if source.synapses is None:
        return None
    found = read_synapses(source.synapses, voxel_size=raw.voxel_size)
    offset, stretch = np.array(raw.offset), np.divide(voxel_size, raw.voxel_size)
    return found.replace(pre=(found.pre - offset) * stretch, post=(found.post - offset) * stretch)


def _check_values(data: TrainingData) -> None:
    """Read what can hold values that no training can use: negative ids, NaN and infinity."""
    if data.raw.dtype.kind == "f":
        for slab in data.slabs():
            if not np.isfinite(data.raw[slab]).all():
                raise VolumeError(
                    f"{data.name} holds NaN or infinity in the sections {slab[0].start} to "
                    f"{slab[0].stop} (z, voxels of raw) of its used box: the weights would no longer be "
                    "numbers after the first sample there. Repair the volume, or leave these sections "
                    "out with `end` or `rois`."
                )
    for slab in data.slabs():
        for labels in data.labels.values():
            if getattr(labels, "signed", False):
                _ = labels[slab]  # raises where an id is negative
