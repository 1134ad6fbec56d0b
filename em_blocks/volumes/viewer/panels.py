"""Panels of the viewer: results side by side over the same images, and boxes around regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from em_blocks.geometry import Roi
from em_blocks.volumes.viewer.annotations import DIMENSIONS


def grid(layers: Sequence[dict], *, shared: Sequence[str]) -> dict:
    """Return a layout with one panel for each layer that is not shared, row by row.

    Parameters
    ----------
    layers : sequence of dict
        All layers of the viewer, by the names in them.
    shared : sequence of str
        Names of layers that every panel shows, below its own.
    """
    own = [layer["name"] for layer in layers if layer["name"] not in shared]
    panels = [
        {"type": "viewer", "layers": [*shared, name], "layout": "xy", "flex": 1} for name in own
    ]
    columns = math.ceil(math.sqrt(len(panels)))
    rows = [panels[n : n + columns] for n in range(0, len(panels), columns)]
    if len(rows) == 1:
        return {"type": "row", "children": rows[0]}
    return {
        "type": "column", "children": [{"type": "row", "children": row, "flex": 1} for row in rows]
    }


def box_layer(name: str, boxes: Mapping[str, Roi], *, colour: str) -> dict:
    """Return a layer of boxes around regions, nm.

    Parameters
    ----------
    boxes : mapping of str to Roi
        By the text that the viewer shows for each.
    colour : str
        As "#ffcc00".
    """
    return {
        "type": "annotation", "name": name, "annotationColor": colour,
        "source": {"url": "local://annotations", "transform": {"outputDimensions": DIMENSIONS}},
        "annotations": [
            {"type": "axis_aligned_bounding_box", "id": str(number), "description": text,
             "pointA": list(roi.offset[::-1]), "pointB": list(roi.end[::-1])}
            for number, (text, roi) in enumerate(boxes.items())
        ],
    }
