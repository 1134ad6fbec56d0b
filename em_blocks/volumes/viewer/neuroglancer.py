"""Layers of volumes for neuroglancer: a source, a place in the world, and colours.

Written from its description, https://neuroglancer-docs.web.app. Its axes are ours under their names
x, y, z; its coordinates count voxels of the finest volume shown, from the world's origin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote

import numpy as np

from em_blocks.config import VolumeInput, is_url, path_of
from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Frame, triple
from em_blocks.volumes.formats.storage import all_formats, detect
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.metadata.ngff import multiscales_of, paths_of
from em_blocks.volumes.stores import store
from em_blocks.volumes.volume import Volume

DTYPES = frozenset(["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"])
"""What neuroglancer can show."""
Role = Literal["image", "channels", "vectors", "score", "labels"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Kinds of layers, from the bottom to the top."""
_DEEPEST = 8  # folders below the one that was named
_PIXELS = 500  # of a panel, into which the first volume should fit
_SAMPLE = (16, 128, 128)


@dataclass(frozen=True)
class Shown:
    """A volume that can be shown.

    Attributes
    ----------
    name : str
    folder : str
        Folder that the viewer reads: the array, or the group of a pyramid.
    volume : Volume
        The array; of a pyramid its finest level.
    role : str
        One of `ROLES`.
    """

    name: str
    folder: str
    volume: Volume
    role: Role

    @classmethod
    def open(cls, place: str | VolumeInput, name: str, role: Role | None = None) -> Shown:
        """Open an array, or a pyramid by the group of its levels.

        Parameters
        ----------
        role : str, optional
            Default: by what it holds.

        Raises
        ------
        VolumeError
            If there is none, or neuroglancer cannot show it.
        """
        folder, finest = path_of(place), place
        if detect(folder) is None and (levels := levels_of(folder)):
            finest = levels[0]
        volume = Volume.open(finest)
        if volume.storage.holds_scales:
            folder = volume.storage.volume_of(volume.path)  # a viewer wants all scales
        if volume.dtype.name not in DTYPES:
            raise VolumeError(
                f"{folder} holds {volume.dtype.name}, which neuroglancer cannot show; it knows "
                f"{', '.join(sorted(DTYPES))}."
            )
        problem = volume.storage.viewer_problem(channels=volume.channels is not None)
        if problem is not None:
            raise VolumeError(f"{folder} {problem}")
        return cls(name, folder, volume, role or _role(volume))

    @property
    def is_pyramid(self) -> bool:
        return self.folder != self.volume.path


def find_volumes(path: str) -> Iterator[str]:
    """Yield arrays and pyramids at and below a path, those of a folder before those of folders in it.

    Below an URL nothing is looked for. A pyramid is found as one, by the folder of its levels.
    """
    if detect(path) is not None:
        yield path
        return
    levels = levels_of(path)
    if levels:
        yield path
    if not is_url(path) and os.path.isdir(path):
        yield from _volumes_in(path, _DEEPEST, levels)


def _volumes_in(folder: str, depth: int, known: Sequence[str]) -> Iterator[str]:
    """Yield volumes in and below a folder, without those that are levels of a pyramid above."""
    names = [e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")]
    deeper = []
    for path in (store.join(folder, name) for name in sorted(names)):
        if path in known:
            continue
        is_array = detect(path) is not None
        levels = [] if is_array else levels_of(path)
        if is_array or levels:
            yield path
        if depth and not is_array:
            deeper.append((path, [*known, *levels]))
    for path, inner in deeper:
        yield from _volumes_in(path, depth - 1, inner)


def levels_of(path: str) -> list[str]:
    """Return the paths of the levels of the pyramid in the group `path`, the finest first; else none."""
    for storage in all_formats():
        attributes = storage.group_attributes(path) or {}
        levels = _ngff_levels(path, attributes) or storage.own_levels(path, attributes)
        if levels:
            return levels
    return []


def _ngff_levels(path: str, attributes: dict) -> list[str]:
    found = [store.join(path, level) for m in multiscales_of(attributes) for level in paths_of(m)]
    return found if found and detect(found[0]) is not None else []


def layer(shown: Shown, url: str) -> dict:
    """Return the layer of a volume whose folder has this URL."""
    source: dict = {"url": f"{shown.volume.storage.viewer_scheme}://{url}"}
    if transform := _transform(shown):
        source["transform"] = transform
    if shown.role == "labels":
        return {"type": "segmentation", "name": shown.name, "source": source}
    return {"type": "image", "name": shown.name, "source": source, "shader": _shader(shown),
            "opacity": 1}  # neuroglancer's default is a half


def viewer_state(shown: Sequence[Shown], layers: Sequence[dict]) -> dict:
    """Return the state of the viewer in front of the middle of the first volume.

    Parameters
    ----------
    shown : sequence of Shown
        At least one.
    layers : sequence of dict
        Theirs, and others.
    """
    size = np.min([s.volume.frame.voxel_size for s in shown], axis=0)
    roi = shown[0].volume.roi
    extent, middle = np.array(roi.shape), np.array(roi.offset) + np.array(roi.shape) / 2
    return {
        "dimensions": _dimensions("xyz", size[::-1]),
        # In the middle of a voxel: sites in that section are seen, too.
        "position": (np.floor(middle / size) + 0.5)[::-1].tolist(),
        "crossSectionScale": float(extent[1:].max() / size.min() / _PIXELS),
        "projectionScale": float(extent.max() / size.min()),
        "layers": list(layers),
        "layout": "4panel",
    }


def viewer_url(client: str, state: dict) -> str:
    """Return address that opens a state in a viewer."""
    return f"{client.rstrip('/')}/#!{quote(json.dumps(state, separators=(',', ':')))}"


# -- what a volume holds ---------------------------------------------------------------------


def _role(volume: Volume) -> Role:
    labels = volume.attributes.get("labels")
    if labels if isinstance(labels, bool) else _is_segmentation(volume):
        return "labels"
    if volume.channels == 3 and _has_negative(volume):
        return "vectors"
    if volume.channels is not None and volume.channels >= 3:
        return "channels"
    return "score" if volume.channels == 1 or volume.scale is not None else "image"


def _is_segmentation(volume: Volume) -> bool:
    said = volume.storage.holds_labels(volume.path)
    return said if said is not None else volume.dtype.kind == "u" and volume.dtype.itemsize >= 4


def _has_negative(volume: Volume) -> bool:
    if volume.dtype.kind == "u":
        return False
    return volume.dtype.kind == "i" or bool((_sample(volume) < 0).any())


def _sample(volume: Volume) -> np.ndarray:
    """Return the values in the middle of a volume."""
    shape = triple(map(min, volume.shape, _SAMPLE))
    corner = triple((n - s) // 2 for n, s in zip(volume.shape, shape, strict=True))
    return volume.read(Box(corner, shape))


def _range(values: np.ndarray, volume: Volume) -> list[float]:
    """Return the values shown black and white; a still empty volume gets all its type can hold."""
    values = values[np.isfinite(values)]
    for share in (0.5, 0):
        low, high = np.percentile(values, [share, 100 - share]) if values.size else (0, 0)
        if low < high:
            return [float(low), float(high)]
    if volume.dtype.kind == "f":
        return [0.0, 1.0]
    limits = np.iinfo(volume.dtype)
    return [float(limits.min), float(limits.max)]


# -- where it lies ---------------------------------------------------------------------------


def _dimensions(names: Sequence[str], sizes_nm: Sequence[float]) -> dict:
    return {name: [size * 1e-9, "m"] for name, size in zip(names, sizes_nm, strict=True)}


def _transform(shown: Shown) -> dict | None:
    """Return the transform from stored axes to x, y, z; None where the format tells enough."""
    volume = shown.volume
    if volume.storage.holds_scales or (shown.is_pyramid and volume.channels is None):
        return None
    axes = volume.arrangement.axes[:: -1 if volume.storage.x_first else 1]
    outputs = _outputs(axes, volume)
    if shown.is_pyramid:
        return {"outputDimensions": outputs}
    offset = dict(zip(SPACE, _shift(volume.frame), strict=True))
    matrix = np.column_stack([np.eye(len(axes)), [offset.get(axis, 0) for axis in axes]])
    names = volume.storage.viewer_axes(volume.path, volume.attributes, len(axes))
    inputs = dict(zip(names, outputs.values(), strict=True))
    return {"matrix": matrix.tolist(), "inputDimensions": inputs, "outputDimensions": outputs}


def _outputs(axes: Sequence[str], volume: Volume) -> dict:
    """Return dimensions of the viewer that stored axes are shown as."""
    lengths = dict(zip(SPACE, volume.frame.voxel_size, strict=True))
    # ^: all channels are there for the shader; ': of this layer alone.
    others = {"c": "c^" if volume.channels is not None else "c'", "t": "t'"}
    return {
        others.get(axis, axis): [lengths[axis] * 1e-9, "m"] if axis in lengths else [1, ""]
        for axis in axes
    }


def _shift(frame: Frame) -> np.ndarray:
    """Return the offset in voxels."""
    return np.array(frame.offset) / frame.voxel_size


# -- how it looks ----------------------------------------------------------------------------


def _shader(shown: Shown) -> str:
    volume = shown.volume
    if shown.role == "vectors":
        return _VECTORS.replace("SCALE", repr(float(volume.scale or 1.0)))
    values = _sample(volume)
    if shown.role == "channels":
        ranges = [_range(values[channel], volume) for channel in range(3)]
        controls = [
            f"#uicontrol invlerp {name}(range={limits}, channel={channel})\n"
            for channel, (name, limits) in enumerate(zip(_COLOURS, ranges, strict=True))
        ]
        return "".join(controls) + _CHANNELS
    if shown.role == "score":
        high = volume.scale or max(1.0, _range(values, volume)[1])
        return f"#uicontrol invlerp score(range={[0.0, float(high)]})\n{_SCORE}"
    return f"#uicontrol invlerp contrast(range={_range(values, volume)})\n{_GREY}"


_COLOURS = ("red", "green", "blue")
_GREY = """void main() {
  emitGrayscale(contrast());
}
"""
_CHANNELS = """void main() {
  emitRGB(vec3(red(), green(), blue()));
}
"""
# From red to yellow, and raw data where there is nothing.
_SCORE = """#uicontrol float least slider(min=0, max=1, default=0.1)
void main() {
  float value = score();
  if (value < least) {
    emitTransparent();
  } else {
    emitRGBA(vec4(1.0, value, 0.0, 0.3 + 0.7 * value));
  }
}
"""
# The colour is the direction (x red, y green, z blue; grey is none), the opacity the length.
_VECTORS = """#uicontrol float longest_nm slider(min=1, max=1000, default=200)
void main() {
  vec3 nm = vec3(float(toRaw(getDataValue(2))), float(toRaw(getDataValue(1))),
                 float(toRaw(getDataValue(0)))) / SCALE;
  float far = length(nm);
  if (far < 1.0) {
    emitTransparent();
  } else {
    emitRGBA(vec4(0.5 + 0.5 * nm / far, min(1.0, far / longest_nm)));
  }
}
"""
