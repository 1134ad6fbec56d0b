"""Continue and repeat a training from its record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from em_blocks.config import apply_override, read_json
from em_blocks.errors import RefusedError
from em_blocks.training.records.origin import commits
from em_blocks.training.records.recorded import Recorded
from em_blocks.training.records.resolve import check_setup

if TYPE_CHECKING:
    from em_blocks.models.setup import Setup


def setup_of(training: Recorded, overrides: tuple[str, ...] = ()) -> Setup:
    """Return the setup of a training with the config that it was trained with.

    Parameters
    ----------
    overrides : strings
        ``key.path=value``, as of ``--set``, for the training that is made of it.

    Raises
    ------
    ConfigError
        If its folder is not there, or holds another network or config than was trained.
    """
    from em_blocks.models.config import SetupConfig
    from em_blocks.models.setup import CONFIG, Setup

    check_setup(training)
    folder = training.folder
    # Trained into the folder of the setup, options may have replaced values of its file; trained into
    # another folder, the file there is what was trained, with paths that count from there.
    copied = CONFIG in training.document.get("made", {})
    values = read_json(folder / CONFIG) if copied else training.document["config"]
    for override in overrides:
        apply_override(values, override)
    return Setup(folder, SetupConfig.from_dict(values, folder=folder, source=f"config of {training}"))


def lineage_of(training: Recorded) -> dict:
    """Describe which training a new one repeats, for its record."""
    document = training.document
    return {"repeats": {"number": training.number, "uid": document.get("uid")}}


def check_commit(training: Recorded, setup_folder: Path) -> None:
    """Raise `RefusedError` unless the code is that of the training, without changes, in git."""
    recorded, now = training.document.get("git") or {}, commits(setup_folder)
    for place in ("em_blocks", "setup"):
        was, here = recorded.get(place), now[place]
        if was is None and here is None:
            continue
        if was is None or was != here or was["dirty"]:
            raise RefusedError(
                f"The code of {place} is not that of {training}: it was trained at {_named(was)}, here "
                f"is {_named(here)}. The weights could differ for that reason alone. Check out that "
                "commit, or leave --check-commit out."
            )


def _named(commit: dict | None) -> str:
    if commit is None:
        return "no git commit"
    return f"commit {commit['commit'][:12]}" + (" with changes" if commit["dirty"] else "")
