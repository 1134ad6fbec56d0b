"""A model as it is exported: its setup, weights, history, and what it gives for a small input."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import nn

from em_blocks import __version__
from em_blocks.export.models.about import About
from em_blocks.export.models.sample import sample_input, sample_outputs, sample_tile
from em_blocks.geometry import Triple, triple
from em_blocks.models.config import SetupConfig
from em_blocks.models.head import Head
from em_blocks.models.setup import CHECKPOINTS, Setup
from em_blocks.nets.residual_unet import ResidualUNet
from em_blocks.nets.unet import UNet


@dataclass(frozen=True)
class Model:
    """A setup with one of its checkpoints.

    Attributes
    ----------
    setup : Setup
    weights : Path
        Of the checkpoint.
    about : About
    """

    setup: Setup
    weights: Path
    about: About = field(default_factory=About)

    @property
    def config(self) -> SetupConfig:
        return self.setup.config

    @cached_property
    def network(self) -> nn.Module:
        """The network with its weights."""
        return self.setup.load(self.weights).eval()

    @cached_property
    def tile(self) -> Triple:
        """Output voxels (z, y, x) of the test input."""
        return sample_tile(self.setup, self.network)

    @property
    def context(self) -> Triple:
        """Voxels (z, y, x) per side that the network sees beyond its output."""
        return triple(self.network.context)  # type: ignore[arg-type]

    @cached_property
    def raw(self) -> np.ndarray:
        """The test input (z, y, x)."""
        shape = triple(t + 2 * c for t, c in zip(self.tile, self.context, strict=True))
        return sample_input(self.config, shape)

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs (c, z, y, x) for the test input."""
        return sample_outputs(self.network, self.config, self.raw)

    @cached_property
    def needs_code(self) -> bool:
        """Whether only network.py can build the network: others get it, and have to trust it.

        The code of older setups builds the U-Net of their config; that is found out, and not sent.
        """
        if self.setup.code is None:
            return False
        if type(self.network) not in (UNet, ResidualUNet) or not self.config.network.trainable:
            return True
        plain = self.config.network.build(self.config.heads)
        if plain.state_dict().keys() != self.network.state_dict().keys():
            return True
        plain.load_state_dict(self.network.state_dict())
        found = sample_outputs(plain, self.config, self.raw)
        return not all(np.array_equal(found[name], values) for name, values in self.outputs.items())

    # -- what is known of its training ------------------------------------------------------

    @cached_property
    def record(self) -> dict[str, Any]:
        """The record of its training; empty if there is none."""
        path = self.setup.folder / CHECKPOINTS / "record.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @cached_property
    def iteration(self) -> int | None:
        """The iteration of the weights, if they say it."""
        try:
            with safe_open(self.weights, "pt") as file:
                return int((file.metadata() or {})["iteration"])
        except (SafetensorError, KeyError, ValueError, OSError):
            best = self.record.get("best") if self.weights.stem == "best" else None
            return best and best.get("iteration")

    def scores(self) -> dict[str, float]:
        """Return the validation scores of the weights; empty where they are not known."""
        entries = [*self.record.get("history", []), self.record.get("best") or {}]
        found = [e for e in entries if e.get("iteration") == self.iteration is not None]
        return {k: v for k, v in (found[-1] if found else {}).items() if isinstance(v, float)}

    def lineage(self) -> dict[str, Any]:
        """Return where the weights come from: command, data by content, versions, what came before."""
        # Not who trained it and on which machine: a model is for others.
        known = (
            "uid", "command", "data", "initial", "lineage", "changes", "versions", "git", "device",
        )
        found = {key: self.record[key] for key in known if self.record.get(key)}
        return {"iteration": self.iteration, **found, "exported_by": f"em_blocks {__version__}"}

    def training(self) -> dict[str, Any]:
        """Return the key `training` of the config that it was trained with; empty if unknown."""
        if trained := self.record.get("config", {}).get("training"):
            return trained
        kept = self.config.training
        return {} if kept is None else kept.model_dump(mode="json", exclude_none=True)


def channel_names(name: str, head: Head) -> list[str]:
    """Name the channels of a head: its classes, the partners of affinities, else numbers."""
    if (named := getattr(head, "channel_names", None)) is not None:
        return list(named)
    if (shifts := getattr(head, "neighborhood", None)) is not None:
        return [f"{name} {' '.join(map(str, shift))}" for shift in shifts]
    return [name] if head.channels == 1 else [f"{name} {n}" for n in range(head.channels)]
