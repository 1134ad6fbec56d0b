"""A whole training: data, loop, validation, checkpoints, log and record."""

from __future__ import annotations

import json
import logging
import time
from contextlib import closing
from functools import cached_property
from pathlib import Path

import torch

from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import ConfigError, RefusedError, RunFailedError
from em_blocks.models.initial import CHANNELS
from em_blocks.models.setup import Setup
from em_blocks.nets.memory import MemoryGuard
from em_blocks.training.beginning import begin_with_state, begin_with_weights, channels_of
from em_blocks.training.checkpoints import BEST, TrainingFiles
from em_blocks.training.data.samples import SampleBatch
from em_blocks.training.identity import differences, identity
from em_blocks.training.loading.batches import Batches
from em_blocks.training.loading.stream import BatchStream
from em_blocks.training.lock import TrainingLock
from em_blocks.training.objective import HeadsObjective
from em_blocks.training.place import SetupCopy
from em_blocks.training.records.base import FINISHED, RUNNING, STOPPED, Records, TrainingRecord
from em_blocks.training.records.importing import refuse_copy
from em_blocks.training.records.metrics_file import metrics_of
from em_blocks.training.records.mongo import MongoRecord
from em_blocks.training.records.origin import Origin, now
from em_blocks.training.records.tensorboard import TensorBoardRecord
from em_blocks.training.review.problems import open_data
from em_blocks.training.scores.panels import FOLDER as PANELS
from em_blocks.training.scores.panels import Panels
from em_blocks.training.scores.reports import curves, log_validation
from em_blocks.training.scores.snapshots import FOLDER, Snapshots
from em_blocks.training.session.interruption import Interruption
from em_blocks.training.session.outcome import outcome
from em_blocks.training.session.progress import Progress
from em_blocks.training.trainer import Step, Trainer
from em_blocks.training.validation import Validation, best_of_each, choice_of

logger = logging.getLogger(__name__)

LOG_EVERY = 10


def train(
    setup: Setup, output: Path, command: str, *, resume: bool, go_on: str,
    store: TrainingStore | None = None, lineage: dict | None = None,
) -> str:
    """Train a setup into a folder, which no other training may write meanwhile.

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
    go_on : str
        The command that continues this training, for messages.
    store : TrainingStore, optional
        Run database that records the training too.
    lineage : dict, optional
        What a new training is made from: JSON values, for its record.

    Returns
    -------
    str
        How it ended: where the best checkpoint is, and its score.

    Raises
    ------
    ConfigError, GeometryError
        If the data or the shapes do not fit; nothing is written then.
    RefusedError
        If the folder is another training's, holds one and `resume` is not set, or holds one of
        another config or other data.
    RunFailedError
        If it was stopped, or ended without a best checkpoint.
    """
    files = TrainingFiles(output)
    with Interruption() as interruption:
        try:
            with TrainingLock(files.folder):
                run = TrainingRun(
                    setup, output, command, resume=resume, store=store, lineage=lineage
                )
                return run.train(interruption, go_on)
        except ConfigError:
            if not resume:  # a folder that cannot be written may be used as well: say that
                files.refuse_if_used()
            raise
        except KeyboardInterrupt:
            raise RunFailedError(
                f"Stopped by {interruption.requested} before the first iteration; nothing was "
                f"trained. Begin again with the same command."
            ) from None


class TrainingRun:
    """One training of one setup into one folder; parameters and errors as of `train`."""

    def __init__(
        self, setup: Setup, output: Path, command: str, *, resume: bool,
        store: TrainingStore | None = None, lineage: dict | None = None,
    ):
        self.setup, self.config = setup, setup.config.to_train()
        self.output, self.command = output, command
        self.files = TrainingFiles(output, self.config.keep)
        self.snapshots = Snapshots(output / "training" / FOLDER, setup.config)
        self.records = Records(self._records(store))
        self.copy = SetupCopy(setup, output)
        # Before any data is opened or made, which can take a while.
        state, record = self.files.load_state() if resume else None, self.files.record.read()
        if not resume:
            self.files.refuse_if_used()
        elif store is not None:
            refuse_copy(store, record.get("uid"), output)
        if not resume or record.get("made"):  # older records do not say what was made
            self.copy.refuse_foreign(record)
        choice_of(setup.config)  # raises before anything is made
        torch.manual_seed(self.config.seed)
        network = setup.build()
        network.check_tile(self.config.output_shape)
        network.check_tile(setup.config.tile_shape)
        if not resume:
            begin_with_weights(network, setup.config)
        weight = getattr(setup.config.network, "auxiliary", None)  # networks of a kind of their own
        objective = HeadsObjective(setup.config.heads, 1.0 if weight is None else weight)
        self.trainer = Trainer(network, objective, self.config)
        if frozen := self.trainer.frozen:
            logger.info("%d parameters are frozen: %s", len(frozen), ", ".join(self.config.freeze))
        if not resume:
            begin_with_state(self.trainer, self.config.initial)
        self.trainer.check_outputs(
            {name: head.channels for name, head in setup.config.heads.items()},
            self.config.output_shape,
        )
        self.guard = MemoryGuard(
            network, batch_size=self.config.batch_size, output_shape=self.config.output_shape,
            tile_shape=setup.config.tile_shape,
        )
        self.files.check_space(network, self.config.iterations)
        self._open_data(network.context)
        self.history: list[dict] = []
        self.changes: list[dict] = []
        self.best: dict | None = None
        self.seconds = 0.0
        self.batches: Batches | None = None
        self.done = self.saved = self._take_over(state) if state else 0
        self.origin = Origin(record if resume else {}, self.done, command, setup.folder, lineage or {})

    def _records(self, store: TrainingStore | None) -> list[TrainingRecord]:
        """Make the receivers of what happens: files of the folder, perhaps the run database."""
        curves = metrics_of(self.output)
        files = [self.files.record, curves, TensorBoardRecord(self.output / "training")]
        return files if store is None else [*files, MongoRecord(store, self.output, curves.read)]

    def _open_data(self, context: tuple[int, int, int]) -> None:
        config = self.setup.config
        self.sources, boxes = open_data(config)
        self.context = context
        self.stream = BatchStream(config, self.sources, context)
        self.validation = Validation(config, boxes)
        self.panels = Panels(self.output / "training" / PANELS, config, self.validation.sets)
        if never := self.validation.never:
            logger.warning("the validation boxes give no value of: %s", ", ".join(never))

    def _take_over(self, state: dict) -> int:
        """Go on from a state; returns the iterations it has done."""
        found = differences(json.loads(state["identity"]), self._identity)
        if found.deciding:
            raise RefusedError(
                f"{self.files.folder} holds a training with other settings: "
                f"{'; '.join(found.deciding)}. Continuing it with these would give a network that no "
                "config describes. Undo the changes, or use --output FOLDER to train anew. What may "
                "be changed: iterations, validate_every, checkpoint_every, snapshot_every, keep, "
                "patience, score."
            )
        done = state["iteration"]
        if done > self.config.iterations:
            raise RefusedError(
                f"{self.files.folder} holds a training of {done} iterations, more than the "
                f"{self.config.iterations} that are asked for. What was learnt cannot be taken back: "
                f"give --iterations {done} or more, or use --output FOLDER to train anew."
            )
        self.trainer.load_state(state["trainer"])
        self.seconds = state["seconds"]
        self.history = [_without_nan(entry) for entry in json.loads(state["history"])]
        self.changes = json.loads(state.get("changes", "[]"))  # not kept by older versions
        if found.changeable:
            self.changes.append({"iteration": done, "changed": found.changeable})
            logger.info("from iteration %d on: %s", done, "; ".join(found.changeable))
        self._take_over_best()
        return done

    def _take_over_best(self) -> None:
        """Make best.safetensors the best of the history whose weights are still there.

        The file may be of a later iteration than the state (the training was killed between the
        two), and the score may be another one than before.
        """
        choice, at_hand = self.validation.choice, self.files.weights_at_hand()
        self.best, ever = choice.best_of(self.history, at_hand), choice.best_of(self.history)
        if self.best is not None:
            self.files.make_best(self.best["iteration"])
        if ever is not None and ever is not self.best:
            logger.warning(
                "iteration %d was the best by %s, but its weights were not kept: %s counts as the "
                "best from now on", ever["iteration"], choice.score,
                f"iteration {self.best['iteration']}" if self.best else "what comes next",
            )

    def train(self, interruption: Interruption, go_on: str) -> str:
        """Train up to the config's number of iterations; returns how it ended."""
        self.copy.write()
        self.records.start(self.done, self._document())  # so that the folder says whose it is
        config, self.began = self.config, time.monotonic() - self.seconds
        last = self.done if self._is_out_of_patience() else config.iterations
        self.batches = Batches(self.setup.config, self.stream, self.context, self.done, last)
        with (
            self.records, Progress(self.done, config.iterations) as progress,
            closing(self.batches), interruption.later(),
        ):
            try:
                if self._validate_if_due(interruption):  # it was stopped before that
                    self._save()
                for batch in self.batches:
                    self._iterate(batch, progress)
                    due = self.done % config.checkpoint_every == 0 or self.done == config.iterations
                    if due:  # a validation may take minutes: if it is killed, no iteration is lost
                        self._save()
                    validated = self._validate_if_due(interruption)
                    over = validated and self._is_out_of_patience()
                    if validated and (due or over):
                        self._save()
                    if over:
                        break
                    if interruption.requested and self.done < config.iterations:
                        raise KeyboardInterrupt
                self.records.state = FINISHED
            except KeyboardInterrupt:
                self._stop(interruption, go_on)
        return outcome(
            config, self.done, self.history, self.best, self.files.folder / BEST
        )

    def _iterate(self, batch: SampleBatch, progress: Progress) -> None:
        with self.guard.step():
            step = self.trainer.step(self.done, batch)
        self.done += 1
        self._note(step)
        progress.advance(step.loss)
        if self.config.snapshot_every and self.done % self.config.snapshot_every == 0:
            predicted = {
                name: values[0] for name, values in self.trainer.predict(batch["raw"][:1]).items()
            }
            picture = self.snapshots.write(self.done, batch.samples[0], predicted)
            self.records.picture(self.done, "snapshot", picture)

    def _validate_if_due(self, interruption: Interruption) -> bool:
        """Validate if it is time for it and has not happened; returns whether it has now."""
        due = self.done % self.config.validate_every == 0 or self.done == self.config.iterations
        had = self.history and self.history[-1]["iteration"] == self.done
        if not self.done or not due or had:
            return False
        # It may take minutes, and is repeated after --resume.
        with interruption.at_once(), self.guard.validation():
            entry = self.validation.entry(self.trainer.average, self.done)
        self.history.append(entry)
        self.records.metrics(self.done, curves(entry))
        log_validation(self.history, self.validation.choice, self.validation.never)
        pictures = self.panels.write(self.trainer.average, self.done)
        if self.validation.choice.better(entry, self.best):
            self.files.save_best(self.trainer.average, self._about())
            self.best = entry
            self.records.checkpoint(self.done, self.files.folder / BEST, self._document())
            # Those of all validations would make a log of hundreds of MB.
            for name, picture in pictures.items():
                self.records.picture(self.done, f"validation/{name}", picture)
        return True

    def _is_out_of_patience(self) -> bool:
        """Tell whether `patience` validations in a row were no better than the best."""
        best = self.best["iteration"] if self.best else 0
        since = [entry for entry in self.history if entry["iteration"] > best]
        return self.config.patience is not None and len(since) >= self.config.patience

    def _note(self, step: Step) -> None:
        if step.skipped:
            logger.warning("iteration %d skipped: loss or gradient is not finite", self.done)
        if self.done % LOG_EVERY == 0:
            values = {
                "loss": step.loss, "gradient_norm": step.gradient_norm,
                "learning_rate": step.learning_rate, "waiting": self.batches.waiting,
                **step.per_head,
            }
            self.records.metrics(self.done, {f"train/{name}": v for name, v in values.items()})

    def _save(self) -> None:
        self.trainer.check_finite(self.done)
        self.seconds = time.monotonic() - self.began
        state = {
            "trainer": self.trainer.state(),
            "iteration": self.done,
            "seconds": self.seconds,
            "history": json.dumps(self.history, allow_nan=False),
            "changes": json.dumps(self.changes),
            "identity": json.dumps(self._identity, allow_nan=False),
        }
        ranking, n = self.validation.choice.ranking(self.history), self.config.keep.best
        weights = self.files.save_checkpoint(
            self.trainer.average, self.done, self._about(),
            # The best of all is best.safetensors, but may become the second.
            best=[entry["iteration"] for entry in ranking[: n if n > 1 else 0]],
        )
        self.records.checkpoint(self.done, weights, self._document())
        self.files.save_state(state, self.done)
        self.saved = self.done

    def _stop(self, interruption: Interruption, go_on: str) -> None:
        """Save what is done, and say how to go on."""
        self.records.state = STOPPED
        if self.done > self.saved:
            self._save()
        kept = (
            f"Its state is saved in {self.files.folder}; go on with: {go_on}"
            if self.done else "Nothing was trained yet; begin again with the same command."
        )
        raise RunFailedError(
            f"The training was stopped by {interruption.requested} after iteration {self.done} of "
            f"{self.config.iterations}. {kept}"
        )

    def _about(self) -> dict[str, str]:
        """Metadata of a weights file; safetensors takes strings only."""
        named = channels_of(self.setup.config.heads)
        return {
            "setup": self.setup.config.name,
            "iteration": str(self.done),
            "seed": str(self.config.seed),
            **({CHANNELS: json.dumps(named)} if named else {}),
        }

    def _document(self) -> dict:
        config = self.setup.config
        return {
            "setup": config.name,
            "command": self.command,
            "state": RUNNING,
            "reason": None,
            "updated": now(),
            "iteration": self.done,
            "iterations": self.config.iterations,
            "seconds": round(self.seconds, 1),
            "waiting": round(self.batches.waiting, 4) if self.batches else 0.0,
            "seed": self.config.seed,
            "best": self.best,
            "best_of_each": best_of_each(config, self.history),
            "checkpoints": self.files.described(),
            "history": self.history,
            "changes": self.changes,
            **self._identity,
            "made": self.copy.checksums(),
            **self.origin.document(),
            "panels": [f"training/{PANELS}", f"training/{FOLDER}"],
            "device": str(self.trainer.device),
            "threads": torch.get_num_threads(),
        }

    @cached_property
    def _identity(self) -> dict:
        return identity(self.setup, self.sources, self.validation.boxes)


def _without_nan(entry: dict) -> dict:
    """An entry as older versions stored it, with null instead of nan."""
    return {key: None if value != value else value for key, value in entry.items()}
