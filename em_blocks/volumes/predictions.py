"""Predicted volumes of any kind - probabilities, masks, ids - read as one value per voxel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.labels import Labels, open_labels
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.values import Values, opened_values
from em_blocks.volumes.volume import Volume

CLASSES = "classes"
"""Attribute of a volume: names of its channels, or of its ids 1, 2, ..."""

BACKGROUND = "background"
"""Name of the first channel of classes that exclude one another."""

SMALL = ("uint8", "uint16")
"""Integers that may hold probabilities."""


@dataclass(frozen=True)
class Prediction(Labels):
    """Values (z, y, x) of one channel, with the place of `Labels`.

    Attributes
    ----------
    scale : float or None
        Stored value that means 1.0; None of ids, where every value but 0 is an object.
    is_sure : bool
        Whether the volume itself says what its values are, and not a sample of them.
    """

    scale: float | None
    is_sure: bool = True

    def read_checked(self, box: Box) -> np.ndarray:
        """Return stored values of a box.

        Raises
        ------
        VolumeError
            If one is NaN, or larger than the sample let expect.
        """
        values = self.read(box)
        if values.dtype.kind == "f" and np.isnan(values).any():
            place = (np.argwhere(np.isnan(values))[0] + box.offset).tolist()
            raise VolumeError(
                f"{self.path} holds NaN at voxel {tuple(place)} (zyx), which is above or below no "
                "threshold. Predict that block again: `em-blocks verify` on the config of its run."
            )
        if not self.is_sure and self.scale == 1 and values.size and values.max() > 1:
            raise VolumeError(
                f"{self.path} has no attribute 'scale', and where a sample held only 0 and 1 it holds "
                f"{int(values.max())}, so it is not clear what means 1.0. Add the attribute scale "
                "to the volume (255 of probabilities in 8 bits), or ask for ids instead of a threshold."
            )
        return values


def names_of(volume: Volume | Values) -> list[str]:
    """Return the classes that a volume names, in the order of channels or ids; none where it does not.

    The background that a softmax puts first has the name "".
    """
    names = volume.attributes.get(CLASSES)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    if volume.channels is not None and names[:1] == [BACKGROUND]:
        return ["", *names[1:]]
    return names


def channel_of(volume: Volume | Values, channel: int | str | None) -> int | None:
    """Return the number of a channel that is named by its number or its class.

    Returns
    -------
    int or None
        None of a volume without channels.

    Raises
    ------
    ConfigError
        If there is no such channel, or several and none is named.
    """
    names = names_of(volume)
    if volume.channels is None:
        if channel in (None, 0):
            return None
        raise ConfigError(
            f"{volume.path} has no channels, so channel {channel!r} cannot be chosen. Leave the "
            "channel out, or name the volume that has it."
        )
    if channel is None and volume.channels == 1:
        return 0
    if isinstance(channel, str) and channel in names and channel:
        return names.index(channel)
    if isinstance(channel, int) and 0 <= channel < volume.channels:
        return channel
    known = ", ".join(f"{n} ({name})" if name else str(n) for n, name in enumerate(names))
    raise ConfigError(
        f"{volume.path} has {volume.channels} channels, and "
        + ("none is chosen" if channel is None else f"none is {channel!r}")
        + f". Name one of them by its number or class: {known or f'0 to {volume.channels - 1}'}."
    )


def id_of(volume: Volume, name: str) -> int:
    """Return the id of a class in a volume of class ids; raises `ConfigError` if it has none."""
    names = names_of(volume)
    if name not in names:
        raise ConfigError(
            f"{volume.path} has no class {name!r}; it names {', '.join(names) or 'no classes'}. Name "
            "ids instead."
        )
    return names.index(name) + 1


def _is_probability(volume: Values) -> bool:
    """Tell whether a volume says that it holds probabilities: floats do, and what has a scale."""
    if volume.attributes.get("labels") is True:
        return False
    return volume.dtype.kind == "f" or (volume.scale is not None and volume.dtype.name in SMALL)


def _likely_scale(volume: Values) -> float:
    """Return what means 1.0 in a volume of small integers that does not say it."""
    boxes = sample_boxes(volume.shape, volume.chunk_shape)
    largest = max(int(volume.read(box).max(initial=0)) for box in boxes)
    return 1.0 if largest <= 1 else float(np.iinfo(volume.dtype).max)


@contextmanager
def open_prediction(
    path: str | VolumeInput, *, channel: int | str | None = None, thresholded: bool = False,
    ids: Collection[int] | None = None,
) -> Iterator[Prediction]:
    """Open one channel of probabilities, a mask or ids for reading.

    Floats are probabilities, and so is what has the attribute ``scale``. Small integers without it
    are ids, unless a threshold is asked for: then they are a mask of 0 and 1, or fill their dtype.

    Parameters
    ----------
    path : str or VolumeInput
        An array in any format of `Volume`, or a file as `opened_values` reads it.
    channel : int or str, optional
        Number or class; needed where there are several.
    thresholded : bool
        Whether a threshold will be put on it.
    ids : ints, optional
        Ids that the caller looks for: then it holds ids.

    Raises
    ------
    ConfigError, VolumeError
        If there is nothing at `path`, no such channel, or ids where a threshold is asked for.
    """
    if ids is None:
        with opened_values(path) as values:
            if _is_probability(values):
                yield _of_values(values, channel, values.scale or 1.0)
                return
            if thresholded and values.dtype.name in SMALL and not values.attributes.get("labels"):
                yield _of_values(values, channel, _likely_scale(values), is_sure=False)
                return
    if thresholded or channel is not None:
        raise ConfigError(
            f"{path} is read as ids, which have neither a threshold nor channels. Leave both out: every "
            "id but 0 is an object, or those that are named. Probabilities are a volume of floats, or "
            "of uint8 or uint16 with the attribute scale (what means 1.0)."
        )
    with open_ids(path, named=() if ids is None else None) as found:
        yield found


@contextmanager
def open_ids(
    path: str | VolumeInput, *, named: Collection[int] | None = ()
) -> Iterator[Prediction]:
    """Open a mask, of bool too, or ids for reading.

    Parameters
    ----------
    named : ints or None
        Ids below 0 that may be read, because the caller knows what they mean; None: all.

    Raises
    ------
    ConfigError, VolumeError
        If there is nothing at `path`, or no ids.
    """
    with opened_values(path) as values:
        if values.dtype.kind == "b":
            yield _of_values(values, None, None)
            return
    with open_labels(path, negative=named) as labels:
        yield Prediction(**vars(labels), scale=None)


def _of_values(
    values: Values, channel: int | str | None, scale: float | None, *, is_sure: bool = True
) -> Prediction:
    number = channel_of(values, channel)
    return Prediction(
        path=values.path, shape=values.shape, dtype=values.dtype, frame=values.frame,
        chunk_shape=values.chunk_shape, attributes=values.attributes, scale=scale, is_sure=is_sure,
        identity=values.identity | {"scale": scale},
        read=values.read if number is None else partial(values.read_channel, number),
    )


def check_prediction(prediction: Prediction) -> None:
    """Raise the error of `Prediction.read_checked` if a few chunks hold what it refuses."""
    for box in sample_boxes(prediction.shape, prediction.chunk_shape):
        prediction.read_checked(box)
