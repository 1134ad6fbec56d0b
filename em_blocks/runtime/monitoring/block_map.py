"""One section of a block grid, packed for a page that draws it."""

from __future__ import annotations

import base64

import numpy as np

from em_blocks.db import progress
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.runtime.monitoring.status import state_of
from em_blocks.runtime.runs.block_sets import masked_of

STATES = ("waiting", "running", DONE, FAILED, QUARANTINED, "masked")
MOST_BLOCKS = 1 << 22
_WAITING, _RUNNING, _DONE, _, _, _MASKED = range(len(STATES))


def section_map(store: RunStore, z: int) -> dict:
    """Return the state of the blocks of section `z` of a run's block grid.

    A block that is held by a worker is running, whatever its record says of earlier attempts; one that
    the mask leaves out is masked. Runs of older versions do not keep their mask: a block without record
    in a run that is done must be masked.

    Returns
    -------
    dict
        ``z``, ``shape`` (blocks y, x), ``hosts`` and ``workers`` (names), and five arrays (y, x) in
        base64, little-endian: ``state`` (uint8, position in `STATES`), ``attempts`` (uint8, at most
        255), ``seconds`` (float32, NaN: not known), ``host`` and ``worker`` (uint16, position in the
        names, 65535: none).

    Raises
    ------
    ConfigError
        If the run was not started, or a section has too many blocks for a map.
    GeometryError
        If the grid has no such section.
    """
    run = store.load()
    if run is None:
        raise ConfigError(f"Run {store.run!r} was not started.")
    nz, *shape = run["grid"]["shape"]
    if not 0 <= z < nz:
        raise GeometryError(f"there is no section {z}: the grid has {nz}, counted from 0")
    if shape[0] * shape[1] > MOST_BLOCKS:
        raise ConfigError(
            f"A section of run {store.run!r} has {shape[0]} x {shape[1]} blocks, more than the "
            f"{MOST_BLOCKS} that a map shows. Ask the database with a query for part of them."
        )
    arrays = _SectionArrays(shape)
    for document in progress.section(store, z):
        arrays.take(document)
    if (masked := masked_of(run)) is not None:
        arrays.state[masked[z]] = _MASKED
    elif run["state"] == DONE:
        arrays.state[arrays.state == _WAITING] = _MASKED
    if state_of(run, store.now()) == "running":
        for key in progress.held_blocks(store):
            arrays.hold(z, key)
    return {"z": z, "shape": shape, **arrays.packed()}


class _SectionArrays:
    """Arrays over a section (y, x) and the names that they refer to."""

    def __init__(self, shape: list[int]):
        self.state, self.attempts = np.zeros(shape, "u1"), np.zeros(shape, "u1")
        self.seconds = np.full(shape, np.nan, "<f4")
        self.host, self.worker = np.full(shape, 0xFFFF, "<u2"), np.full(shape, 0xFFFF, "<u2")
        self._hosts: dict[str, int] = {}
        self._workers: dict[str, int] = {}

    def take(self, document: dict) -> None:
        """Enter a block's record."""
        at = tuple(map(int, document["_id"].rsplit("/", 2)[1:]))
        self.state[at] = STATES.index(document["state"])
        self.attempts[at] = min(255, document.get("attempts", 0))
        if seconds := document.get("seconds"):
            self.seconds[at] = sum(seconds.values())
        self.host[at] = _number(self._hosts, document.get("host"))
        self.worker[at] = _number(self._workers, document.get("worker"))

    def hold(self, z: int, key: str) -> None:
        """Enter a block, of any section, that a worker holds."""
        section, y, x = map(int, key.split("/"))
        if section == z and self.state[y, x] != _DONE:
            self.state[y, x] = _RUNNING

    def packed(self) -> dict:
        names = ("state", "attempts", "seconds", "host", "worker")
        return {
            "hosts": list(self._hosts), "workers": list(self._workers),
            **{name: base64.b64encode(getattr(self, name)).decode() for name in names},
        }


def _number(names: dict[str, int], name: str | None) -> int:
    if name is None:
        return 0xFFFF
    return min(names.setdefault(name, len(names)), 0xFFFF)
