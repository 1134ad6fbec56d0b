"""Pictures of sections: grey values, labels in colours, panels side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from em_blocks.geometry import triple

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


def overlay_picture(
    values: np.ndarray, labels: np.ndarray, *, opacity: float = 0.45
) -> np.ndarray:
    """Labels in their colours over grey values, with a dark line where two of them meet.

    Parameters
    ----------
    values : (y, x) array
        From black (0) to white (1).
    labels : (y, x) int array
        0 is left as it is.
    opacity : float
        0 shows the grey values alone, 1 the labels alone.

    Returns
    -------
    (y, x, 3) uint8 array
    """
    picture, colours = grey_picture(values).astype(np.float32), label_picture(labels)
    shown = labels != 0
    picture[shown] += opacity * (colours[shown] - picture[shown])
    ends = np.zeros(labels.shape, bool)
    ends[1:] = labels[1:] != labels[:-1]
    ends[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    picture[ends] *= 0.4
    return picture.round().astype(np.uint8)


def class_picture(
    values: np.ndarray, shares: np.ndarray, *, opacity: float = 0.6,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> np.ndarray:
    """Classes over grey values, each in a colour of its own, as strong as its share.

    Parameters
    ----------
    values : (y, x) array
        From black (0) to white (1).
    shares : (n, y, x) array
        Probability of every class, 0 to 1.
    opacity : float
        0 shows the grey values alone; 1 hides them where a class has all.
    colours : sequence of (red, green, blue), optional
        Default: those that `label_picture` has for the numbers from 1.

    Returns
    -------
    (y, x, 3) uint8 array
    """
    picture = grey_picture(values).astype(np.float32)
    chosen = colours or [_colour(number) for number in range(1, len(shares) + 1)]
    for colour, share in zip(chosen, shares, strict=True):
        strength = opacity * np.clip(share, 0, 1)[..., None]
        picture += strength * (np.array(colour, np.float32) - picture)
    return picture.round().astype(np.uint8)


def outline_picture(
    values: np.ndarray, labels: np.ndarray, *, colour: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Borders of labels over grey values: the outermost voxels of each label.

    Parameters
    ----------
    values : (y, x) array
        From black (0) to white (1).
    labels : (y, x) int array
        0 has no border of its own.
    colour : (red, green, blue), optional
        Default: that of each label in `label_picture`.

    Returns
    -------
    (y, x, 3) uint8 array
    """
    ends = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        for side in ((0, 1), (1, 0)):  # the voxel on either side of the border
            ends |= np.pad(differ, [side if a == axis else (0, 0) for a in (0, 1)])
    picture, shown = grey_picture(values), ends & (labels != 0)
    picture[shown] = colour if colour is not None else label_picture(labels)[shown]
    return picture


def _colour(label: int) -> tuple[int, int, int]:
    if label == 0:
        return (25, 25, 30)
    hue = label * GOLDEN % 1
    saturation, value = 0.42 + 0.16 * (label % 3) / 2, 0.80 + 0.18 * (label % 5) / 4
    return triple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def panel(
    pictures: dict[str, np.ndarray], *, title: str, pixel_nm: float, width: int = 576,
    columns: int | None = None,
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
    columns : int, optional
        Pictures in a row; default: all.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    n_y, n_x = next(iter(pictures.values())).shape[:2]
    height, head = round(width * n_y / n_x), 64
    columns = min(columns or len(pictures), len(pictures))
    step = height + 2 * GAP + 10  # from row to row, with room for the captions
    bottom = head + (-(-len(pictures) // columns) - 1) * step + height
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, bottom + 3 * GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 10), title, INK, _font(17))
    for number, (caption, picture) in enumerate(pictures.items()):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), head + row * step
        draw.text((left, top - 25), caption, FAINT, _font(15))
        large = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(large, (left, top))
    _scale_bar(draw, (GAP, bottom + 10), width, width / n_x / pixel_nm)
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


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
