"""Score of synaptic partners: detected as in a whole volume, matched one to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from em_blocks.geometry import Nm3
from em_blocks.kernels.evaluation.partner_matching import cremi_score
from em_blocks.kernels.synapses.detection import (
    DetectionRule,
    detect,
    direction_vectors_of,
    steps_to_centres,
)
from em_blocks.kernels.synapses.pairing import centers, pair
from em_blocks.kernels.synapses.partner_ids import ids_of_partners
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.head import Better
from em_blocks.models.joint import JointScore
from em_blocks.models.truth import LABELS, POST, PRE, Truth

ORIGIN = (0.0, 0.0, 0.0)


def detect_partners(
    indicator: np.ndarray,
    vectors: np.ndarray,
    *,
    rule: DetectionRule,
    voxel_size: Nm3,
) -> Synapses:
    """Detect partners in predictions of one box, nm from its first corner.

    Parameters
    ----------
    indicator : (z, y, x) float array
    vectors : (3, z, y, x) float array
        nm.
    """
    found = detect(indicator, scale=1.0, rule=rule, voxel_size=voxel_size)
    steps = direction_vectors_of(found, vectors, scale=1.0, how="mean")
    steps += steps_to_centres(found) * np.asarray(voxel_size, float)
    sites = centers(found.site, offset=ORIGIN, voxel_size=voxel_size)
    pre, post = pair(sites, steps)
    return Synapses(
        id=np.arange(len(post)), pre=pre, post=post, score=found.score, size=found.size
    )


class PartnerScore(JointScore):
    """Precision, recall and F-score of synaptic partners, as in the CREMI challenge.

    "neurons" counts partners that join the right two neurons, at the best of the thresholds; the
    others, at the same threshold, those at the right places (both sites within 400 nm).
    """

    joins: ClassVar[dict[str, str]] = {"indicator": "indicator", "vectors": "direction_vectors"}

    kind: Literal["partners"] = "partners"
    indicator: str = Field("indicator", description="Head that marks postsynaptic sites.")
    vectors: str = Field("direction_vectors", description="Head of vectors to the partner, nm.")
    thresholds: tuple[PositiveFloat, ...] = Field(
        (0.5, 0.7, 0.8, 0.9, 0.95, 0.98), min_length=1, description="Of the indicator."
    )
    min_size: PositiveInt = Field(10, description="Smallest site, voxels.")

    def score_names(self) -> dict[str, Better]:
        return {
            "synapses/fscore_neurons": "higher", "synapses/fscore": "higher",
            "synapses/precision": "higher", "synapses/recall": "higher",
            "synapses/threshold": "neither",
        }

    def scores(self, predicted: Mapping[str, np.ndarray], truth: Truth) -> dict[str, float]:
        """Score detected partners. A site beyond the labels has no neuron, and matches only by place.

        The points of `truth` count from the corner of its arrays.
        """
        labels, size = truth.labels[LABELS], truth.voxel_size
        pre, post = truth.points[PRE], truth.points[POST]
        synapses = Synapses(id=np.arange(len(post)), pre=pre, post=post)
        truth_ids = ids_of_partners(labels, synapses, voxel_size=size)
        best: dict[str, float] = {"synapses/fscore_neurons": -1.0}
        for threshold in self.thresholds:
            rule = DetectionRule(threshold=threshold, min_size=self.min_size, site="peak")
            found = detect_partners(
                predicted[self.indicator][0], predicted[self.vectors], rule=rule, voxel_size=size
            )
            same_neurons = cremi_score(
                truth=synapses, prediction=found, truth_ids=truth_ids,
                prediction_ids=ids_of_partners(labels, found, voxel_size=size),
            )
            if same_neurons.fscore > best["synapses/fscore_neurons"]:
                by_place = cremi_score(truth=synapses, prediction=found)
                best = {
                    "synapses/fscore_neurons": same_neurons.fscore,
                    "synapses/fscore": by_place.fscore, "synapses/precision": by_place.precision,
                    "synapses/recall": by_place.recall, "synapses/threshold": threshold,
                }
        return best
