"""Filters of synapses as they are typed: ``--filter score=12 --filter duplicates=250``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from em_blocks.kernels.synapses.filters import (
    Duplicates,
    Filter,
    Length,
    Listed,
    Objects,
    Score,
    SelfLinks,
)
from em_blocks.kernels.synapses.table import LARGEST_ID, UNMAPPED

FORMS = (
    "score=LEAST", "background", "unmapped", "self", "duplicates[=NM[,post|pre][,best|mean]]",
    "ids=ID,ID,... or ids=@FILE", "length=LEAST_NM,MOST_NM",
)
"""Forms of filters; a kind of objects other than segments follows the name, as in self:skeleton."""


class FilterType(click.ParamType):
    """``NAME[:OBJECTS][=VALUE]``."""

    name = "filter"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return parse_filter(value)
        except ValueError as error:
            self.fail(f"{value[:80]!r}: {error}.", param, ctx)


def parse_filter(text: str) -> Filter:
    """Return the filter that a text stands for, or raise ValueError."""
    head, _, value = text.partition("=")
    name, _, objects = head.partition(":")
    if name not in _PARSERS:
        raise ValueError(f"there is no filter {name!r}; there are {', '.join(FORMS)}")
    if objects not in ("", "segment", "supervoxel", "skeleton"):
        raise ValueError(f"{objects!r} is none of segment, supervoxel, skeleton")
    return _PARSERS[name](value, objects or "segment")


def _score(value: str, objects: Objects) -> Filter:
    return Score(_number(value))


def _listed(ids: Sequence[int]) -> Callable[[str, Objects], Filter]:
    def parse(value: str, objects: Objects) -> Filter:
        _check_none(value)
        return Listed(tuple(ids), objects)

    return parse


def _self(value: str, objects: Objects) -> Filter:
    _check_none(value)
    return SelfLinks(objects)


def _ids(value: str, objects: Objects) -> Filter:
    if value.startswith("@"):
        try:
            value = ",".join(Path(value[1:]).read_text().replace(",", " ").split())
        except OSError as error:
            raise ValueError(f"{value[1:]} cannot be read ({error.strerror})") from error
    try:
        ids = tuple(int(id) for id in value.split(","))
    except ValueError as error:
        raise ValueError(f"{value[:60]!r} is no list of ids") from error
    if max(ids) > LARGEST_ID:
        raise ValueError(f"{max(ids)} is above 2**63 - 1, the largest id that there is")
    return Listed(ids, objects)


def _length(value: str, objects: Objects) -> Filter:
    least, comma, most = value.partition(",")
    if not comma:
        raise ValueError(f"{value!r} is not two lengths with a comma")
    return Length(_number(least or "0"), _number(most) if most else math.inf)


def _duplicates(value: str, objects: Objects) -> Filter:
    distance, *words = value.split(",")
    options: dict = {"site": "post", "keep": "best"}
    for word in words:
        if word not in ("post", "pre", "best", "mean"):
            raise ValueError(f"{word!r} is none of post, pre, best, mean")
        options["site" if word in ("post", "pre") else "keep"] = word
    return Duplicates(_number(distance) if distance else None, objects, **options)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no number")
    return number


def _check_none(value: str) -> None:
    if value:
        raise ValueError(f"{value!r} follows, but it needs no value")


_PARSERS = {
    "score": _score, "background": _listed([0]), "unmapped": _listed([UNMAPPED]), "self": _self,
    "duplicates": _duplicates, "ids": _ids, "length": _length,
}
