"""Predict the validation data of a setup with many of its checkpoints, to choose one."""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, PositiveInt

from em_blocks.config import LocalPath, Shape3, StorePath
from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.geometry import Box, Frame, Roi, Triple, triple
from em_blocks.models.data_config import Sources
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store

if TYPE_CHECKING:  # torch is imported where it is used: `em-blocks status` reads configs without it
    from em_blocks.models.config import SetupConfig
    from em_blocks.training.data.sources import TrainingData

_BLOCK_VOXELS = 2**22


class Predicted(NamedTuple):
    """A box of the validation data, and where its predictions lie.

    Attributes
    ----------
    key : str
        Name of the box, unlike that of any other one.
    data : TrainingData
    roi : Roi
        The box in the world, nm.
    settings : dict
        How its raw is read: keys of a prediction.
    """

    key: str
    data: TrainingData
    roi: Roi
    settings: dict


class PredictCheckpoints(RunConfig):
    """Predict validation data with checkpoints: one run, RUN.ITERATION.BOX, for each box of each.

    `em-blocks evaluate checkpoints` scores the predictions as a training does. They are float32, and
    made in the precision of the training, so that scores are those of a validation in it.
    """

    kind: Literal["predict_checkpoints"]
    setup: LocalPath = Field(description="Folder with config.json and checkpoints/.")
    iterations: tuple[PositiveInt, ...] | None = Field(
        None, min_length=1, description="Of the checkpoints. Default: all that are there."
    )
    validation: Sources | None = Field(
        None, description="Data sources, or a data config. Default: those of the setup's validation."
    )
    score: str | None = Field(
        None, description="Score that chooses the best. Default: `training.score` of the setup."
    )
    output: StorePath = Field(description="Folder of predictions, scores and pictures.")
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: whole tiles of the setup, "
        "about 4 million voxels."
    )

    def steps(self) -> list[BlockwiseTask]:
        """One prediction for every box and checkpoint."""
        return [
            self._step(box, iteration) for box in self.boxes for iteration in self.checkpoints
        ]

    @property
    def first_run(self) -> str:
        return self._run(self.boxes[0], self.checkpoints[0])

    def outputs_root(self) -> str:
        return self.output

    @cached_property
    def setup_config(self) -> SetupConfig:
        """The config of the setup, with the data and the score of this one."""
        from em_blocks.models.setup import Setup

        config = Setup.from_folder(self.setup).config
        changed = {"validation": self.validation, "score": self.score}
        given = {key: value for key, value in changed.items() if value is not None}
        return config.model_copy(
            update={"training": config.to_train().model_copy(update=given)}
        )

    @cached_property
    def checkpoints(self) -> list[int]:
        """Iterations of the checkpoints, ascending.

        Raises
        ------
        CheckpointError
            If one of them, or any, is not there.
        """
        from em_blocks.models.setup import CHECKPOINTS, numbered_checkpoints

        folder = self.setup / CHECKPOINTS
        there = sorted(numbered_checkpoints(folder))
        missing = sorted(set(self.iterations or ()) - set(there))
        if missing or not there:
            raise CheckpointError(
                f"{folder} has no checkpoint of {'iteration ' if missing else 'any iteration'}"
                f"{', '.join(map(str, missing))}; there are {', '.join(map(str, there)) or 'none'}. "
                "Name others, or train with `keep`, which says which checkpoints stay."
            )
        return sorted(self.iterations or there)

    @cached_property
    def boxes(self) -> list[Predicted]:
        """All boxes of the validation data."""
        from em_blocks.training.data.sources import open_sources

        config, found = self.setup_config, []
        for n, source in enumerate(config.to_train().validation):
            if source.raw is None:
                raise ConfigError(
                    "The validation data are made by the generator (`phantom`), but a prediction reads "
                    "volumes. Name stored data: 'validation', or --data."
                )
            volume = Volume.open(source.raw)
            said = source.model_dump(mode="json")
            settings = {name: said[name] for name in ("raw", "normalization")}
            for k, data in enumerate(open_sources([source], config, validation=True, check=False)):
                key = _key(f"{n}_{source.name or 'data'}_{k}")
                named = data._replace(name=key, data_set=data.data_set or data.name)
                found.append(Predicted(key, named, _roi(volume.frame, data), settings))
        return found

    def volume_of(self, box: Predicted, iteration: int, head: str) -> str:
        """Return the volume (c, z, y, x) of a prediction; its first voxel is that of the box."""
        return store.join(self._container(box, iteration), head)

    def _container(self, box: Predicted, iteration: int) -> str:
        return store.join(self.output, "predictions", str(iteration), f"{box.key}.zarr")

    def _run(self, box: Predicted, iteration: int) -> str:
        return f"{self.run}.{iteration}.{box.key}"

    def _step(self, box: Predicted, iteration: int) -> Predict:
        config = self.setup_config
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        return Predict.from_dict({
            **shared, **box.settings, "kind": "predict", "run": self._run(box, iteration),
            "run_dir": str(self.home), "roi": {"offset": box.roi.offset, "shape": box.roi.shape},
            "setup": str(self.setup), "checkpoint": iteration,
            "output": self._container(box, iteration),
            "outputs": {name: {"dtype": "float32"} for name in config.heads},
            "precision": config.to_train().precision, "tile_shape": config.tile_shape,
            "block_shape": self.block_shape or _usual_block(config.tile_shape, box.data),
        })


def _roi(frame: Frame, data: TrainingData) -> Roi:
    return frame.to_roi(Box.between(data.begin, data.end))


def _usual_block(tile_shape: Triple, data: TrainingData) -> Triple:
    """Return whole tiles, not more than cover the box."""
    from em_blocks.training.scores.parts import part_shape

    size = Box.between(data.begin, data.end).shape
    return triple(
        min(part, math.ceil(n / tile) * tile)
        for part, n, tile in zip(part_shape(tile_shape, _BLOCK_VOXELS), size, tile_shape, strict=True)
    )


def _key(name: str) -> str:
    return re.sub("[^A-Za-z0-9_-]", "_", name)[:60]
