"""The web application of recorded trainings: their curves, pictures and differences as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from em_blocks.db.trainings.series import Series
from em_blocks.errors import ConfigError
from em_blocks.json_text import finite
from em_blocks.runtime.dashboard.app import answered, guarded
from em_blocks.training.records.compare import differing
from em_blocks.training.records.recorded import Recorded, summary

MOST_POINTS = 1000
"""Of a curve, as it is sent: more than a diagram has pixels."""
_PICTURE = re.compile(r"(?P<name>.*?)_?(?P<iteration>\d+)\.png")


class Source(NamedTuple):
    """Where trainings are recorded.

    Attributes
    ----------
    all : function
        Returns the trainings without their histories, which a list need not have.
    find : function
        Returns the training of a key: its number as text, or its folder. Raises `ConfigError`.
    """

    all: Callable[[], Sequence[Recorded]]
    find: Callable[[str], Recorded]


def trainings_app(source: Source, *, word: str, hosts: frozenset[str] | None) -> Starlette:
    """Return the web application; parameters as of `make_app`."""
    api = _Api(source)
    return guarded([
        Route("/api/trainings", api.trainings),
        Route("/api/curves", api.curves),
        Route("/api/differences", api.differences),
        Route("/api/pictures", api.pictures),
        Route("/api/picture", api.picture),
    ], word=word, hosts=hosts)


def key_of(training: Recorded) -> str:
    """Return what the page calls a training."""
    return str(training.folder) if training.number is None else str(training.number)


class _Api:
    """Answers the requests of the page. Starlette calls it in threads: it may block."""

    def __init__(self, source: Source):
        self._source = source

    def trainings(self, request: Request) -> Response:
        return answered(lambda: _json([
            {"key": key_of(one), "label": one.label, **summary(one)} for one in self._source.all()
        ]))

    def curves(self, request: Request) -> Response:
        """``?run=KEY&run=KEY``: all curves of these trainings, by name and key."""
        return answered(lambda: _json(self._curves(self._chosen(request))))

    def differences(self, request: Request) -> Response:
        """``?run=KEY&run=KEY``: settings, data and code in which they differ."""
        return answered(lambda: _json(
            differing([training.document for training in self._chosen(request)])
        ))

    def pictures(self, request: Request) -> Response:
        """``?run=KEY``: pictures that lie in the folder of a training, by name and iteration."""
        return answered(lambda: _json(
            [picture for training in self._chosen(request) for picture in _pictures(training)]
        ))

    def picture(self, request: Request) -> Response:
        """``?run=KEY&path=PATH``, one of `pictures`."""
        return answered(lambda: self._picture(request))

    def _chosen(self, request: Request) -> list[Recorded]:
        return [self._source.find(key) for key in request.query_params.getlist("run")]

    def _curves(self, trainings: Sequence[Recorded]) -> dict[str, dict]:
        found: dict[str, dict] = {}
        for training in trainings:
            for name, series in sorted(training.curves().items()):
                found.setdefault(name, {})[key_of(training)] = _thinned(series)
        return found

    def _picture(self, request: Request) -> Response:
        (training,) = self._chosen(request)
        path = request.query_params.get("path", "")
        # Only what was listed: a path could lead anywhere.
        if path not in [picture["path"] for picture in _pictures(training)]:
            raise ConfigError(f"{training} has no picture {path!r}")
        return FileResponse(training.folder / path, media_type="image/png")


def _json(values: object) -> JSONResponse:
    return JSONResponse(finite(values))


def _thinned(series: Series) -> dict[str, list]:
    """Return a curve with at most `MOST_POINTS` points, its last one among them."""
    every = math.ceil(len(series) / MOST_POINTS) or 1
    last = (len(series) - 1) % every
    return {"steps": series.steps[last::every], "values": series.values[last::every]}


def _pictures(training: Recorded) -> list[dict]:
    """List the pictures of a training, the newest last."""
    said = training.document.get("panels") or []
    found = []
    for place in [said] if isinstance(said, str) else said:
        for file in (training.folder / place).glob("*.png"):
            if parts := _PICTURE.fullmatch(file.name):
                found.append({
                    "run": key_of(training), "name": parts["name"] or Path(place).name,
                    "iteration": int(parts["iteration"]), "path": f"{place}/{file.name}",
                })
    return sorted(found, key=lambda picture: (picture["name"], picture["iteration"]))
