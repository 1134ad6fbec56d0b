"""Voxel size and offset in the metadata of a TIFF file: tifffile's, ImageJ's and OME's."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import tifffile

from em_blocks.volumes.metadata.units import nm_per

_OURS = ("voxel_size", "offset", "units")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
# The schema's default.
_OME_UNIT = "µm"


def place_attributes(tiff: tifffile.TiffFile) -> dict:
    """Return ``voxel_size``, ``offset`` and ``units`` as a file states them; {} if it does not.

    Those in the JSON of tifffile's description come first: they are exact, and have an offset.
    """
    for found in (_shaped(tiff), _imagej(tiff), _ome(tiff)):
        if found:
            return found
    return {}


def _shaped(tiff: tifffile.TiffFile) -> dict:
    values = (tiff.shaped_metadata or ({},))[0]
    return {name: values[name] for name in _OURS if name in values}


def _imagej(tiff: tifffile.TiffFile) -> dict:
    """Return the size of ImageJ's voxels: pixels per unit, whatever the tag of units says."""
    values, tags = tiff.imagej_metadata or {}, tiff.pages.first.tags
    unit = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), str(values.get("unit", "")))
    resolutions = [tags.valueof(name) for name in ("YResolution", "XResolution")]
    # A unit of pixels is ImageJ's way of saying nothing.
    if "spacing" not in values or None in resolutions or nm_per(unit) is None:
        return {}
    sizes = [denominator / numerator for numerator, denominator in resolutions if numerator]
    return {"voxel_size": [abs(float(values["spacing"])), *sizes], "units": unit}


def _ome(tiff: tifffile.TiffFile) -> dict:
    if not tiff.ome_metadata:
        return {}
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    found = {} if pixels is None else dict(pixels.attrib)
    sizes = [found.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    if None in sizes:
        return {}
    units = [found.get(f"PhysicalSize{axis}Unit", _OME_UNIT) for axis in "ZYX"]
    return {"voxel_size": [float(size) for size in sizes if size], "units": units}
