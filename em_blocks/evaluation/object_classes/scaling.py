"""Missing values, and columns of one scale."""

from __future__ import annotations

from typing import Literal

import numpy as np

from em_blocks.errors import ConfigError

Scaling = Literal["standard", "robust", "min_max", "log", "none"]
Missing = Literal["refuse", "drop", "median"]


def scaled(values: np.ndarray, scaling: Scaling, names: list[str]) -> np.ndarray:
    """Return columns of comparable size; a constant column becomes 0, it tells nothing apart.

    Parameters
    ----------
    values : array
        (objects, columns), finite.
    scaling : str
        "standard": mean 0 and standard deviation 1. "robust": median 0 and interquartile range 1.
        "min_max": from 0 to 1. "log": the natural logarithm, then as "standard". "none": as it is.
    names : list of str
        Of the columns.

    Raises
    ------
    ConfigError
        If values are to be logarithms that are 0 or negative.
    """
    if scaling == "none":
        return values
    if scaling == "log":
        return scaled(_logarithms(values, names), "standard", names)
    if scaling == "standard":
        begin, size = values.mean(axis=0), values.std(axis=0)
    elif scaling == "robust":
        low, begin, high = np.percentile(values, (25, 50, 75), axis=0)
        size = high - low
    else:
        begin, size = values.min(axis=0), np.ptp(values, axis=0)
    constant = np.ptp(values, axis=0) == 0
    return np.where(constant, 0.0, (values - begin) / _nonzero(size))


def _nonzero(size: np.ndarray) -> np.ndarray:
    # A column whose middle half is one value has no interquartile range: it is only centred.
    return np.where(size == 0, 1.0, size)


def _logarithms(values: np.ndarray, names: list[str]) -> np.ndarray:
    wrong = (values <= 0).any(axis=0)
    if wrong.any():
        column = int(np.argmax(wrong))
        raise ConfigError(
            f"The feature {names[column]!r} has {(values[:, column] <= 0).sum()} values of 0 or less, "
            f"the least {values[:, column].min():g}, which have no logarithm. Use another scaling."
        )
    return np.log(values)


def without_missing(
    values: np.ndarray, names: list[str], ids: np.ndarray, policy: Missing
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a policy for NaN and infinite values.

    Parameters
    ----------
    values : array
        (objects, columns) float64; is not changed.
    policy : str
        "refuse" them, "drop" their objects, or use the "median" of the column.

    Returns
    -------
    values, kept : array
        Finite values of the objects that are kept, and which of them are, bool.

    Raises
    ------
    ConfigError
        If values are missing and that is refused, or nothing is left.
    """
    present = np.isfinite(values)
    kept = np.ones(len(values), bool)
    if present.all():
        return values, kept
    if policy == "refuse":
        counts = dict(zip(names, (~present).sum(axis=0).tolist(), strict=True))
        told = ", ".join(f"{name} {n}" for name, n in counts.items() if n)
        first = ids[np.argmin(present.all(axis=1))]
        raise ConfigError(
            f"{(~present.all(axis=1)).sum()} of {len(values)} objects have missing or infinite values, "
            f"the first is {first} ({told}). They have no distance to others. Set \"missing\": \"drop\" "
            "to leave these objects out, or \"median\" to use the median of the column."
        )
    if policy == "drop":
        kept = present.all(axis=1)
        if not kept.any():
            raise ConfigError(
                "Every object has a missing or infinite value, so \"missing\": \"drop\" leaves none. "
                "Leave the empty columns out of 'features'."
            )
        return values[kept], kept
    return _with_medians(values, present, names), kept


def _with_medians(values: np.ndarray, present: np.ndarray, names: list[str]) -> np.ndarray:
    empty = ~present.any(axis=0)
    if empty.any():
        raise ConfigError(
            f"The feature {names[int(np.argmax(empty))]!r} has no finite value, and thus no median. "
            "Leave it out of 'features'."
        )
    return np.where(present, values, np.nanmedian(np.where(present, values, np.nan), axis=0))
