"""Neuroglancer's precomputed format: one ``info`` file describes all scales of a volume.

A path that ends in ``s0``, ``s1``, ... names one scale of the volume in the folder above; the
folder itself is its first scale. Volumes of other programs are read the same way, and their scales
by whatever keys they have: ``em/4_4_40``. Axes are (x, y, z, c).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import tensorstore as ts

from em_blocks.config import is_url
from em_blocks.geometry import TOLERANCE_VOXELS
from em_blocks.volumes.formats.base import DriverFormat, Layout
from em_blocks.volumes.formats.compressed_chunks import has_compressed_chunks, open_compressed
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.stores import store

INFO, ATTRIBUTES = "info", "em_blocks.json"
_SCALE = re.compile(r"s\d+")
_DEEPEST_KEY = 3
"""Folders that a key may name: most are one, ``4_4_40``."""


class Precomputed(DriverFormat):
    """Scales of precomputed volumes; user attributes are in ``em_blocks.json``."""

    driver = "neuroglancer_precomputed"
    marker = INFO
    attributes_file = ATTRIBUTES
    x_first = has_pyramids = holds_scales = True
    viewer_scheme = "precomputed"

    def is_array(self, path: str) -> bool:
        return "scales" in (store.read_json(path, INFO) or {}) or _is_scale(path)

    def is_taken(self, path: str) -> bool:
        return _is_taken(path) or super().is_taken(path)

    def creation_spec(self, path: str | None, layout: Layout, attributes: dict) -> dict:
        labels = attributes.get("labels", layout.dtype.itemsize == 8)
        return {
            "multiscale_metadata": {
                "type": _type(path) or ("segmentation" if labels else "image"),
                "data_type": str(layout.dtype),
                "num_channels": layout.channels or 1,
            },
            "scale_metadata": {
                "key": (path and split_scale(path)[1]) or "s0",
                "size": list(layout.shape[::-1]),
                "chunk_size": list(layout.chunk_shape[::-1]),
                **_encoding(layout, labels=labels),
                "resolution": list(layout.frame.voxel_size[::-1]),
                "voxel_offset": _voxel_offset(layout)[::-1],
            },
        }

    def create(self, path: str, layout: Layout, attributes: dict) -> None:
        self.forget(path)
        store.write_json(path, ATTRIBUTES, attributes)
        spec = self.creation_spec(path, layout, attributes)
        kvstore = store.kvstore_spec(split_scale(path)[0])
        ts.open({"driver": self.driver, "kvstore": kvstore, **spec}, create=True, open=False).result()

    def open(self, path: str, *, write: bool) -> ts.TensorStore:
        folder, key = location(path)
        spec = {"driver": self.driver, "kvstore": store.kvstore_spec(folder)}
        chosen = {} if key is None else {"scale_metadata": {"key": key}}
        array = ts.open({**spec, **chosen}, open=True, read=True, write=write).result()
        return _with_compressed_chunks(array, path)

    def forget(self, path: str) -> None:
        """Remove from ``info`` what is left of a deleted scale, so that it can be made again."""
        folder, key = split_scale(path)
        info = store.read_json(folder, INFO)
        if key is None or info is None:
            return
        kept = [scale for scale in info["scales"] if scale["key"] != key]
        if not kept:
            store.delete(folder, INFO)  # an info without scales is invalid
        elif len(kept) < len(info["scales"]):
            store.write_json(folder, INFO, {**info, "scales": kept})

    def stored(self, path: str, shape: Sequence[int], attributes: dict) -> Stored:
        # Always these four, whatever names the attributes have for the axes of a volume.
        own = {k: v for k, v in attributes.items() if k not in ("axis_names", "units")}
        return Stored(path, tuple(shape), own, names=("c", *SPACE), scale=_scale_metadata(path))

    def holds_labels(self, path: str) -> bool | None:
        return (store.read_json(location(path)[0], INFO) or {}).get("type") == "segmentation"

    def volume_of(self, path: str) -> str:
        return location(path)[0]


def split_scale(path: str) -> tuple[str, str | None]:
    """Return the folder of ``info`` and the key of the scale at a path to be made; None: the first.

    Only for paths without an ``info`` of their own.
    """
    folder, name = store.split_parent(path)
    return (folder, name) if folder and _SCALE.fullmatch(name) else (path, None)


def location(path: str) -> tuple[str, str | None]:
    """Find folder and key as `split_scale`, of a volume that exists; its scales may have any keys."""
    if store.read_json(path, INFO) is not None:
        return path, None
    return _listed(path) or split_scale(path)


def _is_scale(path: str) -> bool:
    """Return whether `path` names a scale of the volume in a folder above it, by its key.

    One that em_blocks made has attributes: without them it was deleted, and is still listed.
    """
    found = _listed(path)
    if found is None:
        return False
    folder, key = found
    if store.read_json(path, ATTRIBUTES) is not None:
        return True
    return not _SCALE.fullmatch(key) or not (_is_ours(folder) or store.is_empty(path))


def _listed(path: str) -> tuple[str, str] | None:
    """Return the folder of ``info`` above a path, and the key in it that the path names."""
    folder, key = store.split_parent(path)
    for _ in range(_DEEPEST_KEY):
        if not folder or (is_url(path) and not is_url(folder)):
            return None
        scales = _scales(folder)
        if scales:
            return (folder, key) if key in [scale.get("key") for scale in scales] else None
        folder, name = store.split_parent(folder)
        key = f"{name}/{key}"
    return None


def _is_ours(folder: str) -> bool:
    """Return whether em_blocks made any scale of a volume."""
    folders = [folder, *(store.join(folder, scale["key"]) for scale in _scales(folder))]
    return any(store.read_json(one, ATTRIBUTES) is not None for one in folders)


def _is_taken(path: str) -> bool:
    """Return whether making a scale at `path` would destroy one: of ours, or of any other volume.

    A scale that was deleted, with --overwrite, is still listed in ``info``; its folder is empty.
    """
    folder, key = split_scale(path)
    if key not in [scale["key"] for scale in _scales(folder)]:
        return _listed(path) is not None
    whole_volume = store.read_json(folder, ATTRIBUTES) is not None
    return (whole_volume and _scales(folder)[0]["key"] == key) or not store.is_empty(path)


def _scale_metadata(path: str) -> dict:
    """Return the entry of ``info`` for the scale at `path`."""
    folder, key = location(path)
    return next(s for s in _scales(folder) if key is None or s["key"] == key)


def _with_compressed_chunks(array: ts.TensorStore, path: str) -> ts.TensorStore:
    """Return the scale at `path`, whose chunks may be compressed by themselves, axes (x, y, z, c)."""
    if store.read_json(path, ATTRIBUTES) is not None:
        return array  # those of ours never are
    scale = _scale_metadata(path)
    if scale.get("sharding"):
        return array  # files of many chunks
    folder, _ = location(path)
    chunks = store.join(folder, scale["key"])
    if not has_compressed_chunks(array, chunks):
        return array
    return open_compressed(array, chunks, store.read_bytes(folder, INFO) or b"", scale["key"])


def _encoding(layout: Layout, *, labels: bool) -> dict:
    """Return how chunks are encoded: ids are compressed where the format can."""
    if labels and layout.dtype.name in ("uint32", "uint64"):
        block = {"compressed_segmentation_block_size": [8, 8, 8]}
        return {"encoding": "compressed_segmentation", **block}
    return {"encoding": "raw"}


def _scales(folder: str) -> list[dict]:
    scales = (store.read_json(folder, INFO) or {}).get("scales")
    if not isinstance(scales, list):
        return []
    return [scale for scale in scales if isinstance(scale, dict)]


def _type(path: str | None) -> str | None:
    """Return the type of the volume that a scale is added to: it has one for all scales."""
    return path and (store.read_json(split_scale(path)[0], INFO) or {}).get("type")


def _voxel_offset(layout: Layout) -> list[int]:
    frame = layout.frame
    voxels = [o / v for o, v in zip(frame.offset, frame.voxel_size, strict=True)]
    if any(abs(v - round(v)) > TOLERANCE_VOXELS for v in voxels):
        raise ValueError(
            f"the precomputed format stores offsets as whole voxels, but the offset {frame.offset} nm "
            f"is {voxels} voxels of {frame.voxel_size} nm. Choose an offset on the voxel grid, or "
            "another format"
        )
    return [round(v) for v in voxels]
