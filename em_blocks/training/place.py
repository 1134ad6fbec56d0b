"""The folder that a training writes: a setup of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from em_blocks.errors import RefusedError
from em_blocks.models.setup import CONFIG, NETWORK, Setup
from em_blocks.training.identity import portable_config
from em_blocks.training.records.whole_file import write_whole

_OF_THE_NETWORK = {"voxel_size", "network", "heads", "normalization"}
"""Keys of config.json that a prediction reads and that the weights do not hold."""


class SetupCopy:
    """Config and network file of a training, in the folder of its checkpoints.

    Parameters
    ----------
    setup : Setup
        As it is trained.
    folder : Path
        Of the training; perhaps the setup's own, in which nothing is copied.
    """

    def __init__(self, setup: Setup, folder: Path):
        self.setup, self.folder = setup, folder
        self.is_own = folder.resolve() == setup.folder.resolve()

    def refuse_foreign(self, record: dict) -> None:
        """Raise `RefusedError` if the folder is another setup's, or would not describe the weights.

        Parameters
        ----------
        record : dict
            Of the training that was in the folder before; it says which files it made.
        """
        if self.is_own:
            self._refuse_undescribed()
            return
        made = record.get("made", {})
        if self.setup.code is None and (self.folder / NETWORK).exists():
            raise RefusedError(
                f"{self.folder / NETWORK} is there already, and the setup {self.setup.config.name} has "
                "no network.py: predictions with its weights would build another network than was "
                "trained. Use --output with another folder, or move the file away."
            )
        for name, content in self._files().items():
            there = self.folder / name
            if not there.exists():
                continue
            found = there.read_bytes()
            if found != content and _checksum(found) != made.get(name):
                raise RefusedError(
                    f"{there} is there already and is not what this training wrote or would write; it "
                    "needs a file of that name so that its weights can be predicted with. It is not "
                    "overwritten: use --output with another folder, or move the file away. (If you "
                    f"changed it to go on with it: em-blocks train {self.folder / CONFIG} --resume.)"
                )

    def write(self) -> None:
        """Make the folder a setup that can be predicted with."""
        if not self.is_own:
            for name, content in self._files().items():
                write_whole(self.folder / name, lambda path, it=content: path.write_bytes(it))

    def checksums(self) -> dict[str, str]:
        """sha256 (hex) of the files that `write` makes."""
        if self.is_own:
            return {}
        return {name: _checksum(content) for name, content in self._files().items()}

    def _files(self) -> dict[str, bytes]:
        config = json.dumps(portable_config(self.setup, self.folder), indent=2) + "\n"
        code = {} if self.setup.code is None else {NETWORK: self.setup.code.read_bytes()}
        return {CONFIG: config.encode(), **code}

    def _refuse_undescribed(self) -> None:
        own = Setup.from_folder(self.folder).config.model_dump(include=_OF_THE_NETWORK)
        now = self.setup.config.model_dump(include=_OF_THE_NETWORK)
        if differing := sorted(key for key in now if now[key] != own[key]):
            raise RefusedError(
                f"{self.folder / CONFIG} has other values of {', '.join(differing)} than this training, "
                "and a prediction reads them there: it would use the weights in another way than they "
                "were trained. Use --output FOLDER, which gets a config of its own, or change the file."
            )


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
