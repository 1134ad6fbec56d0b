"""Pictures of what went wrong with an instance: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from em_blocks.kernels.plots.sections import grey_picture, overlay_picture, panel

_MARK = (255, 40, 40)
_SHADE = 0.2
"""Of a picture without an image."""


def error_picture(
    *, raw: np.ndarray | None, truth: np.ndarray, prediction: np.ndarray, true_ids: Collection[int],
    predicted_ids: Collection[int], mark: tuple[int, int], title: str, pixel_nm: float,
) -> np.ndarray:
    """Draw the objects of an error in strong colours, all others faintly, and a cross at its place.

    Parameters
    ----------
    raw : (y, x) array, optional
        Grey values of any range.
    truth, prediction : (y, x) int arrays
    true_ids, predicted_ids : ints
        Objects of the error.
    mark : (y, x) int
        Pixel of its place.
    pixel_nm : float
        nm per voxel along x.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    shade = np.full(truth.shape, _SHADE) if raw is None else _stretched(raw)
    pictures = {} if raw is None else {"image": grey_picture(shade)}
    for name, labels, ids in (("truth", truth, true_ids), ("prediction", prediction, predicted_ids)):
        strong, faint = (overlay_picture(shade, labels, opacity=o) for o in (0.6, 0.15))
        chosen = np.isin(labels, np.array(list(ids), np.uint64).astype(labels.dtype))
        picture = np.where(chosen[..., None], strong, faint)
        _draw_mark(picture, mark)
        pictures[_caption(name, ids)] = picture
    return panel(pictures, title=title, pixel_nm=pixel_nm, width=384)


def _caption(name: str, ids: Collection[int]) -> str:
    shown = ", ".join(map(str, list(ids)[:4])) + (" ..." if len(ids) > 4 else "")
    return f"{name}: {shown or 'none'}"


def _stretched(raw: np.ndarray) -> np.ndarray:
    """Return grey values from 0 to 1, without the darkest and brightest hundredth."""
    low, high = np.percentile(raw, (1, 99))
    return np.clip((raw - low) / max(high - low, 1e-9), 0, 1)


def _draw_mark(picture: np.ndarray, mark: tuple[int, int]) -> None:
    """Draw the four arms of a cross around a pixel, which itself stays visible."""
    for distance in (2, 3, 4):
        for dy, dx in ((distance, 0), (-distance, 0), (0, distance), (0, -distance)):
            y, x = mark[0] + dy, mark[1] + dx
            if 0 <= y < picture.shape[0] and 0 <= x < picture.shape[1]:
                picture[y, x] = _MARK
