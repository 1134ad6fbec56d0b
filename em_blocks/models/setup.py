"""A setup folder: config.json and checkpoints; network.py where the network is code of its own."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Self

import torch
from safetensors.torch import load_file
from torch import nn

from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.models.config import SetupConfig

CHECKPOINTS = "checkpoints"
CONFIG, NETWORK = "config.json", "network.py"
_NEEDED = ("context", "check_tile", "predict")
_NUMBERED = re.compile(r"checkpoint_(\d+)\.safetensors$")


class Setup:
    """A network, how it was trained, and its weights.

    Attributes
    ----------
    folder : Path
    config : SetupConfig
    """

    def __init__(self, folder: Path, config: SetupConfig):
        self.folder = folder
        self.config = config

    @classmethod
    def from_folder(
        cls, folder: Path | str, overrides: tuple[str, ...] = (), *, name: str = CONFIG
    ) -> Self:
        """Read a setup; `overrides` are ``key.path=value`` strings, `name` is that of its config.

        Raises
        ------
        ConfigError
            If the folder or its config is missing or wrong.
        """
        folder = Path(folder).absolute()
        if not folder.is_dir():
            raise ConfigError(
                f"The setup {folder} is not a folder. A setup is a folder with config.json and "
                "checkpoints/; the shipped ones are in the folder setups/."
            )
        return cls(folder, SetupConfig.from_file(folder / name, overrides))

    @property
    def code(self) -> Path | None:
        """Return the network.py that builds the network, if it is not one of the kinds."""
        path = self.folder / NETWORK
        return path if path.is_file() else None

    def build(self) -> nn.Module:
        """Make the network with random weights, by network.py where there is one.

        Without it, `network` of the config builds the network.

        Raises
        ------
        ConfigError
            If network.py fails or defines no ``build``.
        """
        if self.code is None:
            return self.config.network.build(self.config.heads)
        try:
            network = _module_of(self.code, self.config.name).build(self.config)
        except Exception as error:
            raise ConfigError(
                f"{self.code} could not build the network: {type(error).__name__}: {error}. The file "
                "must define build(config) and return a torch module for this config.json."
            ) from error
        if missing := [name for name in _NEEDED if not hasattr(network, name)]:
            raise ConfigError(
                f"{self.code} builds a {type(network).__name__} without {', '.join(missing)}. Training "
                "and prediction need them to know which voxels the network reads: return an "
                "em_blocks.nets.unet.UNet, or a module with these attributes."
            )
        return network

    def load(self, checkpoint: Path) -> nn.Module:
        """Make the network with the weights of `checkpoint`, as `checkpoint_path` returned it.

        Raises
        ------
        ConfigError, CheckpointError
            As for `build` and `load_weights`.
        """
        network = self.build()
        if self.config.network.weights is None:
            load_weights(network, checkpoint)
        return network

    def checkpoint_path(self, which: str | int | Path = "best") -> Path:
        """Find the file of a checkpoint: "best", "latest", an iteration, or a path.

        Raises
        ------
        CheckpointError
            If there is no such file; lists those that exist.
        """
        if (own := self.config.network.weights) is not None:
            return self._only_weights(own, which)
        folder = self.folder / CHECKPOINTS
        numbered, name = numbered_checkpoints(folder), str(which)
        if name == "best":
            path = folder / "best.safetensors"
        elif name == "latest":
            path = numbered[max(numbered)] if numbered else folder / "best.safetensors"
        elif name.isdecimal():
            path = numbered.get(int(name), folder / f"checkpoint_{name}.safetensors")
        else:
            path = Path(name)
        if not path.is_file():
            raise CheckpointError(self._missing(which, path))
        return path

    def _only_weights(self, path: Path, which: str | int | Path) -> Path:
        if str(which) not in ("best", "latest", str(path)):
            raise CheckpointError(
                f"The checkpoint {str(which)!r} is not one of the setup {self.config.name}: its network "
                f"is the file {path}, which holds its only weights. Leave 'checkpoint' out."
            )
        return path

    def _missing(self, which: str | int | Path, path: Path) -> str:
        folder = self.folder / CHECKPOINTS
        found = sorted(file.name for file in folder.glob("*.safetensors")) or "none"
        state = "is a folder" if path.is_dir() else "does not exist"
        text = (
            f"The checkpoint {str(which)!r} of setup {self.config.name} needs the file {path}, which "
            f"{state}. In {folder} there are: {found}. "
        )
        if path.parent != folder and (folder / path.name).is_file():
            return text + (
                "A path counts from the folder of the config that names it, not from the setup: "
                f'write {folder / path.name}, or "best", "latest" or an iteration.'
            )
        return text + (
            'Use "best", "latest", an iteration or a path of an existing file (it counts from the '
            "folder of the config that names it), or train the setup first."
        )

    def fingerprint(self, checkpoint: Path) -> str:
        """Compute the sha256 (hex) of all that decides what the network computes."""
        config = self.config.model_dump(
            mode="json", include={"heads", "normalization", "voxel_size"}
        ) | {"network": self.config.network.content()}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        if self.code is not None:
            digest.update(self.code.read_bytes())
        digest.update(hashlib.sha256(Path(checkpoint).read_bytes()).digest())
        return digest.hexdigest()


class _Source(SourceFileLoader):
    """Compiles a file each time: a cache beside it might be of the file as it was a second ago."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module_of(path: Path, name: str) -> ModuleType:
    """Import a file of Python as a module, which classes, pickles and tracebacks can name.

    One of the same path and content is imported once.
    """
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()
    name = f"setup_{name}_{digest[:12]}"
    if name not in sys.modules:
        loader = _Source(name, str(path))
        module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
        module.__file__ = str(path)
        sys.modules[name] = module  # before it runs: dataclasses look their module up
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def numbered_checkpoints(folder: Path) -> dict[int, Path]:
    """List the files checkpoint_<iteration>.safetensors of a folder, by iteration."""
    matches = ((_NUMBERED.match(file.name), file) for file in folder.glob("checkpoint_*"))
    return {int(match.group(1)): file for match, file in matches if match}


def load_weights(network: nn.Module, path: Path) -> None:
    """Load weights into `network`; nothing in the file is executed.

    Parameters
    ----------
    network : torch module
    path : Path
        .safetensors, or a .pt file that holds tensors only.

    Raises
    ------
    CheckpointError
        If the file is unreadable, holds anything but tensors, or is of
        another architecture (names the keys that differ).
    """
    weights = read_weights(Path(path))
    expected = network.state_dict()
    if problems := weight_differences(expected, weights):
        raise CheckpointError(
            f"{path} holds the weights of another network: {'; '.join(problems)}. Use a checkpoint "
            "of this setup, or the setup that the checkpoint was trained with."
        )
    network.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights as `load_weights` does."""
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path} to load weights from. A relative path counts from the folder of "
            "the config that names it; correct it, or bring the file back."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be loaded as network weights: {reason} Only "
            ".safetensors files and .pt files with nothing but tensors are accepted; a pickle "
            "that holds code is never executed. Use another checkpoint, or train again."
        ) from error
    if isinstance(weights, dict) and "trainer" in weights:
        raise CheckpointError(
            f"{path} is the state of a training, from which `em-blocks train --resume` goes on. Use the "
            "weights beside it: best.safetensors or a checkpoint_*.safetensors."
        )
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise CheckpointError(
            f"{path} holds a {type(weights).__name__} instead of a plain dict of tensors. Save the "
            "network's state_dict(), best as .safetensors."
        )
    return weights


def weight_differences(expected: dict, found: dict) -> list[str]:
    """Say in which keys and shapes weights differ from those that a network has; none if in nothing."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshaped = [
        f"{key} is {tuple(found[key].shape)}, needed {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    named = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    return [f"{what}: {_some(keys)}" for what, keys in named if keys]


def _some(keys: list[str], limit: int = 5) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
