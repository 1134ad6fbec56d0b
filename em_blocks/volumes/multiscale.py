"""OME-NGFF multiscales: the metadata by which viewers find the levels of a pyramid.

All levels are arrays of one group, named ``s0`` (full resolution), ``s1``, ...: the paths of the
levels are relative to the group and must stay inside of it. zarr v2 groups follow OME-NGFF 0.4, zarr
v3 groups 0.5 (https://ngff.openmicroscopy.org/0.4, /0.5).
"""

from __future__ import annotations

from em_blocks.geometry import Frame
from em_blocks.volumes.formats.storage import format_named
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.stores import store
from em_blocks.volumes.volume import Volume


def level_path(group: str, level: int) -> str:
    """Return the path of a level of a pyramid; 0 is the full resolution."""
    return store.join(group, f"s{level}")


def write_multiscales(group: str, format: str, levels: list[Volume]) -> None:
    """Tell viewers which arrays of a group are the levels of one volume, finest first."""
    storage = format_named(format)
    name = store.split_parent(group)[1]
    multiscale = ngff_multiscale(
        name, {store.split_parent(v.path)[1]: v.frame for v in levels},
        channels=levels[0].channels is not None,
    )
    storage.make_group(group)
    storage.write_attributes(group, storage.pyramid_attributes(multiscale))


def ngff_multiscale(name: str, frames: dict[str, Frame], *, channels: bool) -> dict:
    """Return one entry of ``multiscales``, without its version.

    Parameters
    ----------
    frames : dict
        Voxel size and offset of every level by its path in the group, finest first.
    channels : bool
        Whether the arrays are (c, z, y, x).
    """
    space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in SPACE]
    return {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}] * channels + space,
        "datasets": [
            {"path": path, "coordinateTransformations": _transformations(frame, channels)}
            for path, frame in frames.items()
        ],
    }


def _transformations(frame: Frame, channels: bool) -> list[dict]:
    # The translation is the centre of the first voxel, ours is its corner. Centres of larger
    # voxels lie further inside, so the translations of the levels differ.
    centre = [o + v / 2 for o, v in zip(frame.offset, frame.voxel_size, strict=True)]
    return [
        {"type": "scale", "scale": [1.0] * channels + list(frame.voxel_size)},
        {"type": "translation", "translation": [0.0] * channels + centre},
    ]
