"""Weights of another network to begin a training with: all that fits, and what does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import nn

from em_blocks.errors import CheckpointError
from em_blocks.models.setup import read_weights, weight_differences
from em_blocks.nets.unet import auxiliary_name

CHANNELS = "channels"
"""Key of the metadata of a weights file: the names of the channels of heads that name them, as JSON."""
Channels = Mapping[str, Sequence[str]]
_NONE: Channels = MappingProxyType({})


class Initial(NamedTuple):
    """What of a network begins otherwise than with the weights of a file.

    Attributes
    ----------
    new : list of str
        Heads, which keep their random weights, and channels as "head: channel", which begin as zeros.
    unused : list of str
        Heads and channels of the file that the network lacks.
    """

    new: list[str]
    unused: list[str]


def load_initial_weights(network: nn.Module, path: Path, channels: Channels = _NONE) -> Initial:
    """Load weights for a network that may have other heads and classes, and more convolutions.

    Heads that `path` lacks, or has with other channels, keep their random weights; of channels that
    have names, those of the same name are loaded and the others begin as zeros: nothing normalises the
    features, so random weights would give extreme values, and their gradients would spoil what the
    network has learnt. Convolutions that it lacks begin as identities: behind a ReLU they change nothing
    at first, so a network can be made deeper, and see farther, without losing what it has learnt. In a
    residual block they would not be: those have to be there.

    Parameters
    ----------
    network : torch module
        Its heads are the parameters "heads.<name>.*", and their own decoders "decoders.<name>.*", as in
        `em_blocks.nets.unet.UNet`.
    path : Path
        As for `load_weights`.
    channels : mapping of head to names
        Names of the channels of heads that have some.

    Raises
    ------
    CheckpointError
        If the file is unreadable, or differs in anything else.

    References
    ----------
    Deeper networks: Chen et al. 2016, arXiv:1511.05641.
    """
    weights, own = read_weights(Path(path)), network.state_dict()
    moved = _by_name(weights, own, channels, _channels_in(Path(path)))
    weights |= moved.weights
    lacking = {name for key in own if (name := _decoder(key))} - set(map(_decoder, weights))
    fresh = {
        head
        for key, value in own.items()
        if (head := _head(key)) and (key not in weights or weights[key].shape != value.shape)
    }
    kept = {
        key: value for key, value in weights.items()
        if key in own or not (_head(key) or _decoder(key))
    }
    kept |= {key: value for key, value in own.items() if _head(key) in fresh or _decoder(key) in lacking}
    kept |= {
        key: _identity(value)
        for key, value in own.items()
        if key not in kept and not _head(key) and ".block." not in key and _keeps_channels(value)
    }
    if problems := weight_differences(own, kept):
        raise CheckpointError(
            f"{path} cannot be trained further as this setup: {'; '.join(problems)}. Use weights "
            "of a network with the same `features`, `pooling` and first `kernels` of every "
            "level, or train from random weights (without `initial`)."
        )
    network.load_state_dict(kept)
    dropped = {head for key in weights if (head := _head(key))} - set(map(_head, own))
    return Initial(sorted(fresh) + moved.new, sorted(dropped) + moved.unused)


class _Moved(NamedTuple):
    weights: dict[str, torch.Tensor]
    new: list[str]
    unused: list[str]


def _by_name(
    weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], now: Channels, then: Channels
) -> _Moved:
    """Bring the channels of a file into the order of the network; others become zeros."""
    moved = _Moved({}, [], [])
    for head in sorted(now.keys() & then.keys()):
        names, old = list(now[head]), list(then[head])
        fitting = [
            key for key, value in own.items()
            if _head(key) == head and key in weights and weights[key].shape[1:] == value.shape[1:]
        ]
        if names == old or not fitting:
            continue
        for key in fitting:
            moved.weights[key] = torch.zeros_like(own[key])
            for number, name in enumerate(names):
                if name in old:
                    moved.weights[key][number] = weights[key][old.index(name)]
        moved.new.extend(f"{head}: {name}" for name in names if name not in old)
        moved.unused.extend(f"{head}: {name}" for name in old if name not in names)
    return moved


def _channels_in(path: Path) -> Channels:
    """Read the names of channels that a file of weights gives; none if it gives none."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get(CHANNELS, "{}"))


def _keeps_channels(value: torch.Tensor) -> bool:
    return value.ndim == 1 or value.shape[0] == value.shape[1]


def _identity(value: torch.Tensor) -> torch.Tensor:
    """Make the weight or bias of a convolution that passes its input on."""
    value = torch.zeros_like(value)
    if value.ndim > 1:
        torch.nn.init.dirac_(value)
    return value


def _head(key: str) -> str | None:
    """Name the head, or the auxiliary output, that a parameter belongs to."""
    of, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    return {"heads": name, "prototypes": name, "auxiliary": auxiliary_name(name)}.get(of)


def _decoder(key: str) -> str | None:
    """Name the head whose own decoder a parameter belongs to."""
    return key.split(".")[1] if key.startswith("decoders.") else None
