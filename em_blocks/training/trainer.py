"""The training loop that every setup shares."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from em_blocks.errors import ConfigError, RunFailedError
from em_blocks.models.config import TrainingConfig
from em_blocks.nets.freezing import freeze
from em_blocks.nets.inference import PRECISIONS, best_device
from em_blocks.training.objective import Batch, Objective

MAX_BAD_STEPS = 10
FIRST_SCALE = 4096.0
"""Of losses in fp16; after 2,000 good steps it doubles, after a bad one it halves."""
FINAL_LEARNING_RATE = 0.01  # of the highest


class Step(NamedTuple):
    """Report of one iteration."""

    loss: float
    per_head: dict[str, float]
    gradient_norm: float
    learning_rate: float
    skipped: bool  # not finite: the weights were left alone


class Trainer:
    """Network, its running average, optimiser, and one step of training.

    Parameters
    ----------
    network : torch module
        ``network(raw)`` gives a dict of outputs, and ``network.predict(raw)`` of activated ones.
    objective : Objective
        Gives the losses of the outputs.
    config : TrainingConfig

    Attributes
    ----------
    average : torch module
        Exponential average of the weights and buffers: what is validated and kept.
    frozen : list of str
        Parameters that stay as they are.
    """

    def __init__(self, network: nn.Module, objective: Objective, config: TrainingConfig):
        self.device = best_device()
        self.network = network.to(self.device, memory_format=torch.channels_last_3d).train()
        self.frozen = freeze(self.network, config.freeze)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.objective = objective
        self.config = config
        self.optimizer = torch.optim.AdamW(
            [values for values in self.network.parameters() if values.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,  # one pass over the weights instead of a dozen
        )
        # Gradients below the least number of fp16 would vanish: losses are scaled up for them.
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=FIRST_SCALE, enabled=config.precision == "fp16"
        )
        self._bad_steps = 0

    def step(self, iteration: int, batch: Batch) -> Step:
        """Train on one batch of `iteration` (from 0).

        Parameters
        ----------
        batch : mapping of name to array
            "raw" (n, 1, z, y, x) float32 and what the objective reads.

        Raises
        ------
        RunFailedError
            If loss or gradient were not finite `MAX_BAD_STEPS` times in a row.
        """
        rate = learning_rate(self.config, iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        per_head = self._losses(iteration, batch)
        total = sum(per_head.values())
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        finite = bool(torch.isfinite(total) & torch.isfinite(norm))
        self._count_bad(finite, iteration)
        if finite:
            self.scaler.step(self.optimizer)
            self._update_average(iteration)
        self.scaler.update()
        return Step(
            float(total.detach()),
            {name: float(loss.detach()) for name, loss in per_head.items()},
            float(norm),
            rate,
            not finite,
        )

    @torch.no_grad()
    def predict(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the activated output of every head by the network as it is now.

        Parameters
        ----------
        raw : (n, 1, z, y, x) float32 array
            As in a batch.

        Returns
        -------
        dict of (n, c, z, y, x) float32 arrays
        """
        values = torch.from_numpy(raw).to(self.device)
        with self._precision():
            outputs = self.network.predict(_laid_out(values))
        return {
            name: output.float().contiguous().cpu().numpy() for name, output in outputs.items()
        }

    @torch.no_grad()
    def check_outputs(self, channels: Mapping[str, int], shape: Sequence[int]) -> None:
        """Raise `ConfigError` unless the network gives every head at an output of `shape` voxels.

        Parameters
        ----------
        channels : mapping of head name to int
        shape : (3,) ints
        """
        expected = {name: (n, *shape) for name, n in channels.items()}
        try:
            size = [n + 2 * c for n, c in zip(shape, self.average.context, strict=True)]
            outputs = self.average.predict(torch.zeros((1, 1, *size), device=self.device))
            found = {name: tuple(output.shape[1:]) for name, output in outputs.items()}
        except Exception as error:  # the network is a user's code
            found = f"{type(error).__name__}: {error}"
        if found != expected:
            raise ConfigError(
                f"The network of the setup gives {found} for an output of {tuple(shape)} voxels (zyx), "
                f"but the heads of the config need {expected} (channels, z, y, x). Its predict(raw) "
                "must return one array per head, and its `context` the voxels that it needs around "
                "its output; make network.py, or the kind of network, build what `heads` says."
            )

    def check_finite(self, iteration: int) -> None:
        """Raise `RunFailedError` unless all weights are numbers: others must not be stored."""
        weights = [*self.network.state_dict().values(), *self.average.state_dict().values()]
        if not all(bool(torch.isfinite(values).all()) for values in weights):
            raise RunFailedError(
                f"After iteration {iteration} the network has weights that are not finite, so none were "
                "saved; those saved before are sound. Lower training.learning_rate (or use "
                "precision fp32), then train anew with --output FOLDER."
            )

    def state(self) -> dict:
        """Return all that `load_state` needs to go on as if never stopped."""
        return {
            "bad_steps": self._bad_steps,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
        }

    def load_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        self._bad_steps = state.get("bad_steps", 0)  # not kept by older versions

    def begin_with(self, state: dict) -> None:
        """Take over another training's weights and optimiser, but neither its rates nor its failures."""
        self.load_state(state | {"bad_steps": 0})
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay

    def _losses(self, iteration: int, batch: Batch) -> dict[str, Tensor]:
        tensors = {
            name: torch.from_numpy(values).to(self.device) for name, values in batch.items()
        }
        with self._precision():
            outputs = self.network(_laid_out(tensors["raw"]))
        return self.objective(outputs, tensors, iteration)

    def _precision(self) -> torch.autocast:
        dtype = PRECISIONS[self.config.precision]
        mixed = dtype != torch.float32
        return torch.autocast(self.device.type, dtype if mixed else torch.bfloat16, enabled=mixed)

    def _count_bad(self, finite: bool, iteration: int) -> None:
        self._bad_steps = 0 if finite else self._bad_steps + 1
        if self._bad_steps == MAX_BAD_STEPS:
            raise RunFailedError(
                f"Loss or gradient were not finite in the {MAX_BAD_STEPS} iterations up to "
                f"{iteration}. Weights that were saved before are sound. Lower "
                "training.learning_rate (or use precision fp32), then train anew with --output "
                "FOLDER, and look for raw data with extreme values."
            )

    def _update_average(self, iteration: int) -> None:
        # Early weights are far from the final ones: average over fewer of them.
        decay = min(self.config.ema_decay, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            values = self.network.state_dict()
            for name, mean in self.average.state_dict().items():  # parameters and buffers
                if mean.is_floating_point():
                    mean.lerp_(values[name], 1 - decay)
                else:
                    mean.copy_(values[name])  # counts, of which there is no average


def _laid_out(values: Tensor) -> Tensor:
    """Volumes (n, c, z, y, x) in the memory format in which convolutions are fast."""
    return values.to(memory_format=torch.channels_last_3d) if values.ndim == 5 else values


def learning_rate(config: TrainingConfig, iteration: int) -> float:
    """Compute the rate: linear warm-up, then half a cosine down to `FINAL_LEARNING_RATE` of the highest.

    A function of the iteration and of the config's number of iterations alone. A training that is
    resumed with more of them goes on with the rates of the longer one, so its rate rises once.
    """
    if iteration < config.warmup:
        return config.learning_rate * (iteration + 1) / config.warmup
    done = (iteration - config.warmup) / max(1, config.iterations - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.learning_rate * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine)
