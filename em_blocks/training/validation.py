"""Validation: scores of a network on boxes that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.head import Better
from em_blocks.models.scores.voxels import mean_of_known
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.inference import predict_box, truth_of_box
from em_blocks.training.scores.selection import Choice

Outputs = dict[str, np.ndarray]
UNDEFINED = "undefined"
"""Key of an entry that says why scores are null."""
_NOTHING_KNOWN = "nothing there is known that it could be measured on"


class Validation:
    """Scores of networks on the boxes of `training.validation`.

    Parameters
    ----------
    config : SetupConfig
    boxes : sequence of TrainingData

    Attributes
    ----------
    names : list of str
        Of all scores.
    choice : Choice
        By which checkpoints are compared.
    never : dict of name to reason
        Scores that have no value on these boxes whatever a network predicts.

    Raises
    ------
    ConfigError
        If `training.score` is no score of the heads, or has no value on these boxes whatever a
        network predicts.
    """

    def __init__(self, config: SetupConfig, boxes: Sequence[TrainingData]):
        self.config, self.boxes, self.joint = config, boxes, config.joint_scores()
        self.choice, self.names = choice_of(config), list(all_scores(config))
        self.never = self._entry(self._nothing).get(UNDEFINED, {})
        self._check_score()

    def entry(self, network: nn.Module, iteration: int) -> dict:
        """Entry of the history: "iteration", and every score, the mean of the boxes that have it.

        A score without value is None, and "undefined" says why.
        """
        try:
            found = self._entry(lambda data: predict_box(network, data, self.config))
        except ArithmeticError as error:  # of one box, but then the network is no good for any
            found = dict.fromkeys(self.names)
            found[UNDEFINED] = dict.fromkeys(self.names, str(error))
        return {"iteration": iteration, **found}

    def _entry(self, predict: Callable[[TrainingData], Outputs]) -> dict:
        parts = [self._scores(predict(data), data) for data in self.boxes]
        means = {
            key: mean_of_known([part.get(key, math.nan) for part in parts]) for key in self.names
        }
        why = {key: _NOTHING_KNOWN for key, value in means.items() if not math.isfinite(value)}
        scores = {key: None if key in why else value for key, value in means.items()}
        return scores | ({UNDEFINED: why} if why else {})

    def _scores(self, predicted: Outputs, data: TrainingData) -> dict[str, float]:
        truth = truth_of_box(data, self.config.voxel_size)
        found = {
            f"{name}/{key}": value
            for name, head in self.config.heads.items()
            for key, value in head.scores(predicted[name], truth).items()
        }
        for joint in self.joint:
            found |= joint.scores(predicted, truth)
        return found

    def _nothing(self, data: TrainingData) -> Outputs:
        """Make what a network that finds nothing predicts: it shows which scores there will be."""
        shape = tuple(last - first for first, last in zip(data.begin, data.end, strict=True))
        return {
            name: np.zeros((head.channels, *shape), np.float32)
            for name, head in self.config.heads.items()
        }

    def _check_score(self) -> None:
        score, why = self.choice.score, self.never
        if score in why:
            usable = sorted(choosing(self.config) - why.keys())
            raise ConfigError(
                f"training.score is {score!r}, which has no value in the boxes of training.validation "
                f"({', '.join(data.name for data in self.boxes)}): {why[score]}. No checkpoint could "
                f"ever be the best. Use boxes that hold it, or another score"
                f"{f' ({usable})' if usable else ''}."
            )


def all_scores(config: SetupConfig) -> dict[str, Better]:
    """Name all scores of a setup, and say which values are the better ones."""
    names = {
        f"{name}/{key}": better
        for name, head in config.heads.items()
        for key, better in head.score_names().items()
    }
    for joint in config.joint_scores():
        names |= joint.score_names()
    return names


def choosing(config: SetupConfig) -> set[str]:
    """Name the scores that can choose a checkpoint."""
    return {name for name, better in all_scores(config).items() if better != "neither"}


def choice_of(config: SetupConfig) -> Choice:
    """Tell how checkpoints of a setup are compared.

    Raises
    ------
    ConfigError
        If `training.score` is no score of the heads, or one that is neither good nor bad.
    """
    score = config.training.score
    if score not in (usable := choosing(config)):
        raise ConfigError(
            f"training.score is {score!r}, but checkpoints can be chosen only by {sorted(usable)}: that "
            "is what the validation of these heads gives. Use one of these."
        )
    return Choice(score, lower_wins=all_scores(config)[score] == "lower")
