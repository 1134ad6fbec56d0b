"""Shared helper: random walks through the states of inputs; a verb refuses, or is right."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from em_blocks.errors import ChangedInputError, FingerprintMismatchError, IncompleteInputError
from em_blocks.geometry import Frame
from em_blocks.tasks.base import RunConfig
from em_blocks.volumes import Volume
from producing import Foreign, Input, run

SEEDS = range(int(os.environ.get("EM_BLOCKS_STATE_SEEDS", "1")))
"""More of them: EM_BLOCKS_STATE_SEEDS=20, or benchmarks/input_states.py."""
N_STATES = 5


@dataclass(frozen=True)
class Verb:
    """A verb, and what it reads.

    Attributes
    ----------
    versions : dict of str to (two arrays, attributes)
        What each input may hold, (z, y, x) or (c, z, y, x).
    config : function of paths, folder and database settings
        A config of the name "verb" that writes below the folder.
    result : function of config
        What came out, as arrays by name.
    """

    versions: Mapping[str, tuple]
    frame: Frame
    config: Callable[..., RunConfig]
    result: Callable[[RunConfig], dict[str, np.ndarray]]
    block_shape: tuple[int, int, int]
    chunk_shape: tuple[int, int, int]
    prepare: Callable[[dict], None] = lambda settings: None
    can_skip: bool = True


@dataclass
class Walk:
    """One walk: the inputs of a verb change their states, and the verb is repeated after each.

    Parameters
    ----------
    folder : Path
    uri : str
        A database server; the inputs have a database of their own there, or that of the verb.
    seed : int
    """

    verb: Verb
    folder: Path
    uri: str
    seed: int
    log: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.name = f"w{os.getpid()}_{abs(hash((self.folder, self.seed))) % 10**9}"
        self.settings = {"db_host": self.uri, "db_name": f"{self.name}_verb"}
        apart = bool(self.rng.integers(2))
        made = {"db_host": self.uri, "db_name": f"{self.name}_{'made' if apart else 'verb'}"}
        self.skip = self.verb.can_skip and bool(self.rng.integers(2))
        self.log.append(f"seed {self.seed}, skip {self.skip}, another database {apart}")
        self.n_fresh = 0
        self.inputs = {name: self._input(name, made) for name in self.verb.versions}
        self.verb.prepare(self.settings)

    def _input(self, name: str, settings: dict) -> Input | Foreign:
        """One in four was not made by em_blocks."""
        (versions, attributes), verb = self.verb.versions[name], self.verb
        common = {"chunk_shape": verb.chunk_shape, "rng": self.rng, "attributes": attributes}
        if self.rng.random() < 0.25:
            self.log.append(f"{name} is foreign")
            return Foreign(self.folder, name, versions, verb.frame, **common)
        return Input(
            self.folder, name, versions, verb.frame, block_shape=verb.block_shape, settings=settings,
            mask=self._mask(), **common,
        )

    def go(self, n: int = N_STATES) -> None:
        """The walk; an error tells the way."""
        try:
            self._check()
            for _ in range(n):
                name = str(self.rng.choice(list(self.inputs)))
                self._step(name, str(self.rng.choice(self.inputs[name].STATES)))
            for name in self.inputs:
                self._step(name, "done")
        except BaseException as error:
            error.add_note("the walk: " + "; ".join(self.log))
            raise

    def _step(self, name: str, state: str) -> None:
        self.log.append(f"{name} {state}")
        self.inputs[name].become(state)
        self._check()

    def _check(self) -> None:
        complete = all(source.is_complete for source in self.inputs.values())
        options = {"incomplete_inputs": "skip"} if self.skip else {}
        task = self._config(self.folder / "verb", self.settings, **options)
        try:
            last = run(task)[-1]
        except IncompleteInputError:
            if complete or self.skip:
                raise
            return
        except (ChangedInputError, FingerprintMismatchError):
            if not any(source.is_other for source in self.inputs.values()):
                raise
            self.log.append("overwritten")
            last = run(task, overwrite=True)[-1] if complete else None
        self._mark_known(complete)
        if not complete:
            assert last is None or (not last.ok and "lacks" in last.reason), last
            return
        assert last.ok, last
        assert_same(self.verb.result(task), self._fresh())

    def _mark_known(self, complete: bool) -> None:
        for source in self.inputs.values():
            source.is_other = source.is_other and not complete

    def _fresh(self) -> dict[str, np.ndarray]:
        self.n_fresh += 1
        settings = self.settings | {"db_name": f"{self.name}_fresh{self.n_fresh}"}
        self.verb.prepare(settings)
        task = self._config(self.folder / f"fresh{self.n_fresh}", settings)
        assert run(task)[-1].ok
        return self.verb.result(task)

    def _config(self, folder: Path, settings: dict, **options) -> RunConfig:
        paths = {name: source.path for name, source in self.inputs.items()}
        return self.verb.config(paths, folder, **settings, **options)

    def _mask(self) -> str | None:
        """Half of the walks leave out some of the blocks."""
        if self.rng.integers(2):
            return None
        (first, _), _ = next(iter(self.verb.versions.values()))
        kept = self.rng.random([-(-s // b) for s, b in zip(first.shape[-3:], self.verb.block_shape)])
        kept = (kept < 0.8).astype(np.uint8)
        kept.flat[0] = 1
        frame = self.verb.frame
        coarse = Frame(
            tuple(v * b for v, b in zip(frame.voxel_size, self.verb.block_shape)), frame.offset
        )
        path = str(self.folder / f"mask{self.rng.integers(10**9)}.zarr/m")
        mask = Volume.create(path, shape=kept.shape, dtype="uint8", frame=coarse,
                             chunk_shape=kept.shape)
        mask.write(mask.box, kept)
        return path


def assert_same(ours: dict, theirs: dict) -> None:
    """The same arrays, to the bit."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def voxels(*paths: str) -> dict[str, np.ndarray]:
    """All voxels of volumes, by the ends of their paths."""
    found = {}
    for path in paths:
        volume = Volume.open(path)
        found[path.rsplit("/", 1)[-1]] = volume.read(volume.box)
    return found
