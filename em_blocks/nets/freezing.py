"""Freeze parameters of a network: those that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from em_blocks.errors import ConfigError


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Turn off the gradients of all parameters that a pattern names.

    Parameters
    ----------
    network : torch module
    patterns : sequence of str
        Names of parameters or of modules, with * and ? as in a shell: "down" is the whole way down,
        "down.0" its finest level, "*.bias" every bias.

    Returns
    -------
    list of str
        Names of the frozen parameters.

    Raises
    ------
    ConfigError
        If a pattern names nothing, or nothing is left to be trained.
    """
    parameters = dict(network.named_parameters())
    frozen: set[str] = set()
    for pattern in patterns:
        found = {name for name in parameters if _names(pattern, name)}
        if not found:
            raise ConfigError(
                f"training.freeze has {pattern!r}, which names no parameter of the network, so that "
                f"something would be trained that should stay. There are {_listed(parameters)}, each "
                'with parameters below it: "down" freezes all of them, "down.0" the first.'
            )
        frozen |= found
    if parameters and frozen == parameters.keys():
        raise ConfigError(
            f"training.freeze names all {len(frozen)} parameters of the network: nothing would be "
            f"trained. Leave out the last layers, for example those of {list(parameters)[-1]}."
        )
    for name in frozen:
        parameters[name].requires_grad_(False)
    return [name for name in parameters if name in frozen]


def _names(pattern: str, name: str) -> bool:
    """Tell whether a pattern names a parameter or a module that it belongs to."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def _listed(names: Sequence[str] | dict) -> str:
    """List the modules of the first two levels."""
    return ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
