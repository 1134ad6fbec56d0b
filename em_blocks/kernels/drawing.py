"""Pictures of sections: grey values, labels in colours, panels side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (255, 255, 255), (20, 20, 20), (80, 80, 80)
GAP = 14  # pixels between and around pictures
GOLDEN = 0.61803398875  # hues a golden ratio apart never come close to each other


def grey_picture(values: np.ndarray, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Values from black (`low`) to white (`high`).

    Parameters
    ----------
    values : (y, x) array

    Returns
    -------
    (y, x, 3) uint8 array
    """
    shade = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    return np.repeat((shade * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


def label_picture(labels: np.ndarray) -> np.ndarray:
    """One colour per label, the same in every picture; 0 is dark.

    Parameters
    ----------
    labels : (y, x) int array

    Returns
    -------
    (y, x, 3) uint8 array
    """
    ids, places = np.unique(labels, return_inverse=True)
    colours = np.array([_colour(int(label)) for label in ids], np.uint8)
    return colours[places.reshape(labels.shape)]


def _colour(label: int) -> tuple[int, int, int]:
    if label == 0:
        return (25, 25, 30)
    hue = label * GOLDEN % 1
    saturation, value = 0.42 + 0.16 * (label % 3) / 2, 0.80 + 0.18 * (label % 5) / 4
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def panel(
    pictures: dict[str, np.ndarray], *, title: str, pixel_nm: float, width: int = 576
) -> np.ndarray:
    """Pictures of one section side by side, with captions, a title and a scale bar.

    Parameters
    ----------
    pictures : dict of str to (y, x, 3) uint8 array
        By caption; all of one shape.
    title : str
        One line above all.
    pixel_nm : float
        nm per voxel in the section.
    width : int
        Pixels of one picture, whatever its voxels.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    n_y, n_x = next(iter(pictures.values())).shape[:2]
    height, head = round(width * n_y / n_x), 64
    sheet = Image.new(
        "RGB", (len(pictures) * (width + GAP) + GAP, head + height + 3 * GAP), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 10), title, INK, _font(17))
    for number, (caption, picture) in enumerate(pictures.items()):
        left = GAP + number * (width + GAP)
        draw.text((left, head - 25), caption, FAINT, _font(15))
        large = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(large, (left, head))
    _scale_bar(draw, (GAP, head + height + 10), width, width / n_x / pixel_nm)
    return np.asarray(sheet)


def _scale_bar(
    draw: ImageDraw.ImageDraw, corner: Sequence[int], width: int, pixels_per_nm: float
) -> None:
    """A bar of a round length, up to two fifths of a picture of `width` pixels."""
    longest = max(10, 0.4 * width / pixels_per_nm)
    length = max(n for n in (10, 20, 50, 100, 200, 500, 1000, 2000) if n <= longest)
    x, y = corner
    draw.rectangle((x, y, x + round(length * pixels_per_nm), y + 5), INK)
    draw.text((x + round(length * pixels_per_nm) + 8, y - 6), f"{length} nm", INK, _font(14))


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
