"""Values on the command line: types that several commands understand, and options made from models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import click
from pydantic import BaseModel

from em_blocks.cli.config_tables import alternatives


class Numbers(click.ParamType):
    """Numbers with commas, as a tuple.

    Parameters
    ----------
    number : type
        int or float.
    form : str
        How they are typed, for the message.
    count : int, optional
        How many there must be.
    least : float
        Smallest that is allowed.
    """

    name = "numbers"

    def __init__(
        self, number: type, form: str, *, count: int | None = None, least: float = -math.inf
    ):
        self.number, self.form, self.count, self.least = number, form, count, least

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            values = tuple(map(self.number, value.split(",")))
        except ValueError:
            values = ()
        right = values and all(self.least <= v < math.inf for v in values)
        if not right or self.count not in (None, len(values)):
            self.fail(f"{value!r} is not of the form {self.form}.", param, ctx)
        return values


class ThreePositive(Numbers):
    """Three positive numbers with commas."""

    name = "z,y,x"

    def __init__(self, number: type):
        kind = "whole numbers" if number is int else "numbers"
        super().__init__(
            number, f"z,y,x, three positive {kind}", count=3, least=math.nextafter(0, 1)
        )


class Steps(Numbers):
    """Numbers with commas, or first:last:step with both ends, as an ascending tuple."""

    def convert(self, value, param, ctx):
        if isinstance(value, str) and value.count(":") == 2:
            try:
                first, last, step = map(self.number, value.split(":"))
                n = math.floor((last - first) / step + 1e-9) + 1
            except (ValueError, ArithmeticError):
                n = 0
            if n < 1 or step <= 0:
                self.fail(f"{value!r} is not of the form {self.form}.", param, ctx)
            # Rounded, or 0.1:0.9:0.1 would give 0.30000000000000004.
            value = ",".join(str(round(first + k * step, 12)) for k in range(n))
        found = super().convert(value, param, ctx)
        return found if found is None else tuple(sorted(set(found)))


def options_from(
    model: type[BaseModel], *names: str, **types: click.ParamType
) -> Callable[[Callable], Callable]:
    """Return a decorator that adds an option for each of the fields `names` and `types` of a model.

    Defaults, bounds, choices and help are those of the field. A field with a list of values is an
    option that may be repeated.

    Parameters
    ----------
    types
        How the text of an option is read, where the field does not say it.
    """
    fields = model.model_json_schema()["properties"]

    def decorated(command: Callable) -> Callable:
        for name in reversed((*names, *types)):
            command = _option(name, fields[name], types.get(name))(command)
        return command

    return decorated


def _option(name: str, field: dict, kind: click.ParamType | None) -> Callable:
    value = alternatives(field)[0]
    repeated = value.get("type") == "array"
    if repeated:
        value = value["items"]
    default = field.get("default")
    return click.option(
        f"--{name.replace('_', '-')}", type=kind or _type(value), multiple=repeated,
        is_flag=value.get("type") == "boolean", default=default,
        show_default=default not in (None, False, []), metavar=_metavar(value),
        help=field["description"] + (" May be repeated." if repeated else ""),
    )


def _type(value: dict) -> click.ParamType:
    """Return the type of option that takes the values of a JSON Schema."""
    if "enum" in value:
        return click.Choice(value["enum"])
    if value.get("format") == "path":
        return click.Path(path_type=Path)
    plain = {"integer": click.INT, "number": click.FLOAT, "boolean": click.BOOL}
    if value.keys().isdisjoint(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")):
        return plain.get(value.get("type"), click.STRING)
    low, high = value.get("exclusiveMinimum"), value.get("exclusiveMaximum")
    bounded = click.IntRange if value["type"] == "integer" else click.FloatRange
    return bounded(
        min=value.get("minimum", low), min_open=low is not None,
        max=value.get("maximum", high), max_open=high is not None,
    )


def _metavar(value: dict) -> str | None:
    """Return VOLUME where an object may say more of a path, as in configs; else what click says."""
    if "$ref" in value or value.get("format") == "path":
        return "FILE"
    return "VOLUME" if value.get("type") == "string" and "enum" not in value else None
