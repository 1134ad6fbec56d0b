"""Validation: scores of a network on boxes that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.head import Better
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.data_sets import (
    MEASURED,
    DataSets,
    Predict,
    means,
    score_names,
)
from em_blocks.training.scores.inference import predict_box
from em_blocks.training.scores.selection import DATA_SETS, UNDEFINED, Choice

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
        self.config, self.boxes, self.sets = config, boxes, DataSets(config, boxes)
        self.choice, self.names = choice_of(config), list(score_names(config, metric=self.sets.metric))
        self.never = self._entry(self._nothing).get(UNDEFINED, {})
        self._check_score()

    def entry(self, network: nn.Module, iteration: int) -> dict:
        """Entry of the history: "iteration", and every score.

        A score is the mean of the boxes that have it, and where heads count, of the data sets that
        have it. One without value is None, and "undefined" says why. Of several data sets,
        "data_sets" lists the scores of each, with its name as "data_set".
        """
        return self.entry_of(lambda data: predict_box(network, data, self.config), iteration)

    def entry_of(self, predict: Predict, iteration: int) -> dict:
        """Entry, as of `entry`, of what `predict` returns for the boxes, or parts of them."""
        try:
            found = self._entry(predict)
        except ArithmeticError as error:  # of one box, but then the network is no good for any
            found = dict.fromkeys(self.names)
            found[UNDEFINED] = dict.fromkeys(self.names, str(error))
        return {"iteration": iteration, **found}

    def _entry(self, predict: Predict) -> dict:
        sets = {name: self.sets.scores(name, predict) for name in self.sets.names}
        counted = means([scores.counted for scores in sets.values()])
        scores = counted | means([box for scores in sets.values() for box in scores.boxes])
        values = {key: scores.get(key, math.nan) for key in self.names}
        why = {key: _NOTHING_KNOWN for key, value in values.items() if not math.isfinite(value)}
        entry: dict = _with_none(values)
        if len(sets) > 1:
            entry[DATA_SETS] = [
                {"data_set": name, **_with_none(scores.all())} for name, scores in sets.items()
            ]
        return entry | ({UNDEFINED: why} if why else {})

    def _nothing(self, data: TrainingData) -> dict[str, np.ndarray]:
        """Make what a network that finds nothing predicts: it shows which scores there will be."""
        shape = tuple(last - first for first, last in zip(data.begin, data.end, strict=True))
        return {
            name: np.zeros((head.channels, *shape), np.float32)
            for name, head in self.config.heads.items()
        }

    def _check_score(self) -> None:
        score, why = self.choice.score, self.never
        if score not in self.names:
            raise ConfigError(
                f"training.score is {score!r}, which is measured where metric masks count, but none of "
                "the boxes of training.validation has `metric_masks`. Give them some, or use "
                f"{score.removesuffix(MEASURED)!r}."
            )
        if score in why:
            usable = sorted((choosing(self.config) & set(self.names)) - why.keys())
            raise ConfigError(
                f"training.score is {score!r}, which has no value in the boxes of training.validation "
                f"({', '.join(data.name for data in self.boxes)}): {why[score]}. No checkpoint could "
                f"ever be the best. Use boxes that hold it, or another score"
                f"{f' ({usable})' if usable else ''}."
            )


def _with_none(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in scores.items()}


def all_scores(config: SetupConfig) -> dict[str, Better]:
    """Name all scores that a setup can have, and say which values are the better ones."""
    return score_names(config)


def best_of_each(config: SetupConfig, history: Sequence[dict]) -> dict[str, dict]:
    """Find the best entry of a history by every score that is good or bad: its iteration and value."""
    found = {}
    for name, better in all_scores(config).items():
        best = Choice(name, lower_wins=better == "lower").best_of(history)
        if better != "neither" and best is not None:
            found[name] = {"iteration": best["iteration"], "value": best[name]}
    return found


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
