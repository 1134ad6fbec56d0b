"""A whole training: data, loop, validation, checkpoints, log and record."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import time
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tensorboardX import SummaryWriter

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.training.checkpoints import TrainingFiles
from em_blocks.training.heads import head_trainings
from em_blocks.training.identity import differences, identity, portable_config
from em_blocks.training.inference import predict_box
from em_blocks.training.progress import Progress
from em_blocks.training.samples import Sample
from em_blocks.training.setup import Setup, load_initial_weights
from em_blocks.training.snapshots import FOLDER, Snapshots
from em_blocks.training.sources import TrainingData, open_source
from em_blocks.training.stream import BatchStream
from em_blocks.training.synapse_scores import partner_scores, synapses_of_box
from em_blocks.training.trainer import Step, Trainer

logger = logging.getLogger(__name__)

LOG_EVERY = 10
PACKAGES = ("torch", "gunpowder", "numpy", "scipy", "zarr", "waterz")


class TrainingRun:
    """One training of one setup into one folder.

    Parameters
    ----------
    setup : Setup
    output : Path
        Folder that gets checkpoints/ and training/ (the TensorBoard log and snapshots). If
        it is not the setup's own, it becomes a setup that can be predicted with.
    command : str
        What the user typed, for the record.
    resume : bool
        Go on from the newest state in `output`.

    Raises
    ------
    ConfigError, GeometryError
        If the data or the shapes do not fit; nothing is written then.
    RefusedError
        If the folder holds a training and `resume` is not set, or one with
        another config or other data.
    """

    def __init__(self, setup: Setup, output: Path, command: str, *, resume: bool):
        self.setup, self.config = setup, setup.config.training
        self.output, self.command = output, command
        self.files = TrainingFiles(output)
        self.snapshots = Snapshots(output / "training" / FOLDER, setup.config)
        if not resume:  # before any data is opened or made, which can take a while
            self.files.refuse_if_used()
        torch.manual_seed(self.config.seed)
        network = setup.build()
        network.check_tile(self.config.output_shape)
        network.check_tile(setup.config.tile_shape)
        if self.config.initial and not resume:
            fresh = load_initial_weights(network, self.config.initial)
            logger.info("weights of %s; random heads: %s", self.config.initial.name, fresh or "none")
        self.heads = head_trainings(setup.config)
        self.trainer = Trainer(
            network, {name: head.loss for name, head in self.heads.items()}, self.config
        )
        size = setup.config.voxel_size
        self.sources = [open_source(source, size) for source in self.config.sources]
        self.validation = [open_source(source, size) for source in self.config.validation]
        self.stream = BatchStream(setup.config, self.sources, self.heads, network.context)
        self.history: list[dict] = []
        self.seconds = 0.0
        self.done = self._load() if resume else 0

    def _load(self) -> int:
        """Take over the newest state; returns the iterations it has done."""
        state = self.files.load_state()
        if differing := differences(json.loads(state["identity"]), self._identity):
            raise RefusedError(
                f"{self.files.folder} holds a training with other settings: "
                f"{'; '.join(differing)}. Continuing it with these would give a network that no "
                "config describes. Undo the changes, or use --output FOLDER to train anew."
            )
        self.trainer.load_state(state["trainer"])
        self.history, self.seconds = json.loads(state["history"]), state["seconds"]
        return state["iteration"]

    def train(self) -> None:
        """Train up to the config's number of iterations."""
        self._make_setup()
        config, done, began = self.config, self.done, time.monotonic() - self.seconds
        with (
            SummaryWriter(str(self.output / "training"), purge_step=done) as log,
            Progress(done, config.iterations) as progress,
        ):
            for batch in self.stream.batches(done, config.iterations):
                step = self.trainer.step(done, batch)
                done += 1
                self._log(log, done, step)
                progress.advance(step.loss)
                if config.snapshot_every and done % config.snapshot_every == 0:
                    self._snapshot(done, batch, log)
                last = done == config.iterations
                if done % config.validate_every == 0 or last:
                    self._validate(done, log)
                self.seconds = time.monotonic() - began
                if done % config.checkpoint_every == 0 or last:
                    self._save(done)

    def _snapshot(self, done: int, batch: Sample, log: SummaryWriter) -> None:
        predicted = self.trainer.predict(batch["raw"][:1])
        picture = self.snapshots.write(done, batch, predicted)
        log.add_image("snapshot", picture, done, dataformats="HWC")

    def _validate(self, done: int, log: SummaryWriter) -> None:
        parts = [self._scores(data) for data in self.validation]
        scores = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        if self.config.score not in scores:
            raise ConfigError(
                f"training.score is {self.config.score!r}, but the validation gives only "
                f"{sorted(scores)}. Use one of these."
            )
        for name, value in scores.items():
            log.add_scalar(f"validation/{name}", value, done)
        logger.info("iteration %d: %s", done, _listed(scores))
        best = max((entry[self.config.score] for entry in self.history), default=-np.inf)
        self.history.append({"iteration": done, **scores})
        if scores[self.config.score] > best:
            self.files.save_best(self.trainer.average, self._about(done))

    def _scores(self, data: TrainingData) -> dict[str, float]:
        predicted = predict_box(self.trainer.average, data, self.setup.config)
        labels = np.asarray(data.labels[data.box])
        synapses = synapses_of_box(data, self.setup.config.voxel_size)
        found = {
            key: value
            for name, head in self.heads.items()
            for key, value in head.validate(predicted[name], labels, synapses).items()
        }
        kinds = {head.head.kind: name for name, head in self.heads.items()}
        if {"indicator", "direction_vectors"} <= kinds.keys():
            found |= partner_scores(
                predicted[kinds["indicator"]][0], predicted[kinds["direction_vectors"]],
                labels, synapses, self.setup.config.voxel_size,
            )
        return found

    def _log(self, log: SummaryWriter, done: int, step: Step) -> None:
        if step.skipped:
            logger.warning("iteration %d skipped: loss or gradient is not finite", done)
        if done % LOG_EVERY == 0:
            log.add_scalar("train/loss", step.loss, done)
            log.add_scalar("train/gradient_norm", step.gradient_norm, done)
            log.add_scalar("train/learning_rate", step.learning_rate, done)
            for name, loss in step.per_head.items():
                log.add_scalar(f"train/{name}", loss, done)

    def _save(self, done: int) -> None:
        state = {
            "trainer": self.trainer.state(),
            "iteration": done,
            "seconds": self.seconds,
            "history": json.dumps(self.history),
            "identity": json.dumps(self._identity),
        }
        self.files.save_checkpoint(self.trainer.average, done, self._about(done))
        self.files.save_record(self._record(done))
        self.files.save_state(state, done)

    def _about(self, done: int) -> dict[str, str]:
        """Metadata of a weights file; safetensors takes strings only."""
        return {
            "setup": self.setup.config.name,
            "iteration": str(done),
            "seed": str(self.config.seed),
        }

    def _record(self, done: int) -> dict:
        score = self.config.score
        return {
            "setup": self.setup.config.name,
            "command": self.command,
            "iteration": done,
            "seconds": round(self.seconds, 1),
            "best": max(self.history, key=lambda entry: entry[score], default=None),
            "history": self.history,
            **self._identity,
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in PACKAGES},
            "device": str(self.trainer.device),
            "threads": torch.get_num_threads(),
        }

    @cached_property
    def _identity(self) -> dict:
        return identity(self.setup, self.sources, self.validation)

    def _make_setup(self) -> None:
        """Make the output folder a setup of its own."""
        if self.output.resolve() == self.setup.folder.resolve():
            return
        self.output.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.setup.folder / "network.py", self.output)
        text = json.dumps(portable_config(self.setup, self.output), indent=2) + "\n"
        (self.output / "config.json").write_text(text)


def _listed(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
