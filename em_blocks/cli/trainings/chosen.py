"""What `em-blocks train` is asked to train: a setup, or a recorded training again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import ConfigError
from em_blocks.models.setup import CONFIG, Setup
from em_blocks.training.beginning import start_of
from em_blocks.training.records.again import check_commit, lineage_of, setup_of
from em_blocks.training.records.recorded import find_recorded


class Asked(NamedTuple):
    """Options of the command."""

    setup: Path | None
    continued: str | None
    repeated: str | None
    output: Path | None
    resume: bool
    check_commit: bool
    overrides: tuple[str, ...]
    start_from: str | None = None
    full_state: bool = False
    db: str | None = None


class Chosen(NamedTuple):
    """What is trained, and where."""

    setup: Setup
    output: Path
    resume: bool
    lineage: dict
    kind: str = "setup"

    def go_on(self, arguments: Sequence[str], db: str | None) -> list[str]:
        """Return the arguments that continue this training, if `arguments` began it."""
        if self.kind == "repeated":
            verb = [word for word in arguments[:1] if word == "train"]
            return [*verb, str(self.output), "--resume", *(["--db", db] if db else [])]
        if self.kind == "continued":
            return list(arguments)
        return [*arguments, *([] if self.resume else ["--resume"])]


def chosen_training(asked: Asked, store: TrainingStore | None) -> Chosen:
    """Open the setup that is trained.

    Raises
    ------
    ConfigError
        If the options contradict each other, or what they name is not there.
    RefusedError
        If --check-commit finds other code than was recorded.
    """
    ways = [asked.setup, asked.continued, asked.repeated]
    if sum(way is not None for way in ways) != 1:
        raise ConfigError(
            "Name what to train by one of these: SETUP (a folder, or the config.json in it), --continue "
            "RUN, or --repeat RUN."
        )
    if asked.setup is not None:
        return _setup(asked, asked.setup)
    _refuse("--start-from", asked.start_from is not None, "--continue and --repeat begin as recorded")
    training = find_recorded(store, str(asked.continued or asked.repeated))
    setup = setup_of(training, asked.overrides)
    if asked.check_commit:
        check_commit(training, setup.folder)
    if asked.continued is not None:
        _refuse("--output", asked.output is not None, "--continue trains in the folder of the training")
        return Chosen(setup, training.folder, True, {}, "continued")
    _refuse("--resume", asked.resume, "--repeat begins with the first iteration")
    if asked.output is None:
        raise ConfigError(
            f"--repeat trains {training} again, which needs a folder of its own: give --output FOLDER."
        )
    return Chosen(setup, asked.output, False, lineage_of(training), "repeated")


def _setup(asked: Asked, said: Path) -> Chosen:
    _refuse("--check-commit", asked.check_commit, "it compares with the record that --continue and "
            "--repeat read")
    _refuse("--full-state", asked.full_state and not asked.start_from, "it belongs to --start-from")
    config, overrides, lineage = said / CONFIG if said.is_dir() else said, asked.overrides, {}
    if asked.start_from is not None:
        start = start_of(asked.start_from, full_state=asked.full_state, db=asked.db)
        overrides, lineage = (*overrides, f"training.initial={start.path}"), start.lineage
    setup = Setup.from_folder(config.parent, overrides, name=config.name)
    return Chosen(setup, asked.output or setup.folder, asked.resume, lineage)


def _refuse(option: str, given: bool, why: str) -> None:
    if given:
        raise ConfigError(f"{option} does not fit here: {why}. Leave it out.")
