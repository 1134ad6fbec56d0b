"""Values on the command line that several commands understand."""

from __future__ import annotations

import click


class ThreePositive(click.ParamType):
    """Three positive numbers with commas."""

    name = "z,y,x"

    def __init__(self, number: type):
        self.number = number

    def convert(self, value, param, ctx):
        try:
            values = tuple(self.number(part) for part in value.split(","))
        except ValueError:
            values = ()
        if len(values) != 3 or not all(0 < v < float("inf") for v in values):
            kind = "whole numbers" if self.number is int else "numbers"
            self.fail(f"{value!r} is not of the form z,y,x, three positive {kind}.", param, ctx)
        return values
