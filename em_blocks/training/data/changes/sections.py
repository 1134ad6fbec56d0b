"""Sections that are shifted or lost, in everything that a sample holds."""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.kernels.transforms.sections import SectionMoves, draw_moves

MOST_REMOVED = 2
"""Sections in a row that are lost at most."""


class MoveSections(gp.BatchFilter):
    """Shift sections by whole voxels, and leave some out; raw, labels, masks and sites alike.

    Reads as much more as that needs. A site in a lost section lies in the one before it.

    Parameters
    ----------
    misaligned, removed : float
        Share of samples with shifted sections, and with lost ones.
    largest : (2,) int
        Largest shift along y and x, voxels.
    """

    def __init__(self, misaligned: float, removed: float, largest: Sequence[int]):
        self.misaligned, self.removed, self.largest = misaligned, removed, tuple(largest)

    def skip_node(self, request):
        rng = np.random.default_rng(request.random_seed)
        shifted, lost = rng.random(2) < (self.misaligned, self.removed)
        step = self.spec[next(iter(request.array_specs))].voxel_size
        self.step, self.total = step, request.get_total_roi()
        self.made: SectionMoves = draw_moves(
            rng, int(self.total.shape[0] / step[0]),
            removed=int(rng.integers(1, MOST_REMOVED + 1)) if lost else 0,
            largest=self.largest if shifted else (0, 0),
        )
        return not self.made.moves

    def prepare(self, request):
        needed = gp.BatchRequest()
        for key, spec in request.items():
            first, source, shift = self._of(spec.roi)
            begin = spec.roi.begin / self.step
            low, high = shift.min(axis=0), shift.max(axis=0)
            corner = (begin[0] + int(source[0]) - first, *(np.array(begin[1:]) + low).tolist())
            shape = (int(source[-1] - source[0]) + 1,
                     *(np.array(spec.roi.shape[1:]) / self.step[1:] + high - low).astype(int).tolist())
            roi = gp.Roi(gp.Coordinate(corner) * self.step, gp.Coordinate(shape) * self.step)
            needed[key] = type(spec)(roi=roi)
        return needed

    def _of(self, roi: gp.Roi) -> tuple[int, np.ndarray, np.ndarray]:
        """Return the first section of a roi, counted in the sample, and where its sections lie."""
        first = int((roi.begin[0] - self.total.begin[0]) / self.step[0])
        n = int(roi.shape[0] / self.step[0])
        return first, self.made.source[first : first + n], self.made.shift[first : first + n]

    def process(self, batch, request):
        result = gp.Batch()
        for key, array in batch.arrays.items():
            spec = array.spec.copy()
            spec.roi = request[key].roi
            result[key] = gp.Array(self._moved(array.data, spec.roi), spec)
        for key, graph in batch.graphs.items():
            result[key] = self._moved_sites(graph, request[key].roi)
        return result

    def _moved(self, data: np.ndarray, roi: gp.Roi) -> np.ndarray:
        _, source, shift = self._of(roi)
        low = shift.min(axis=0)
        _, height, width = roi.shape / self.step
        return np.stack([
            data[z - source[0], y : y + height, x : x + width]
            for z, (y, x) in zip(source, shift - low, strict=True)
        ])

    def _moved_sites(self, graph: gp.Graph, roi: gp.Roi) -> gp.Graph:
        step, corner = np.array(self.step, float), np.array(self.total.begin, float)
        nodes = []
        for node in graph.nodes:
            at = (node.location - corner) / step
            section = int(np.searchsorted(self.made.source, at[0], side="right")) - 1
            section = min(max(section, 0), len(self.made.source) - 1)
            ends = section + 1 == len(self.made.source)
            into = at[0] - self.made.source[section]
            # What was lost has no place of its own.
            at[0] = section + (into if ends else min(into, 0.999))
            at[1:] -= self.made.shift[section]
            nodes.append(gp.Node(node.id, at * step + corner))
        spec = graph.spec.copy()
        spec.roi = graph.spec.roi.union(roi)
        return gp.Graph(nodes, list(graph.edges), spec).crop(roi)
