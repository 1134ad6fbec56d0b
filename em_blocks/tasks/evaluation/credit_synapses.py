"""Credit synapses to the pairs of neurons that they lie between, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from em_blocks.config import LocalPath, Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.kernels.evaluation.connectivity import (
    Contacts,
    Credits,
    context_of,
    count_sizes,
    reach_in_nm,
    reach_in_voxels,
    steps_in_nm,
)
from em_blocks.kernels.evaluation.connectivity_scores import Mode
from em_blocks.kernels.evaluation.counts import Counts, Sizes
from em_blocks.kernels.evaluation.cremi_marks import SIGNED
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.evaluation.count_overlaps import Id, labels_identity, usual_block
from em_blocks.tasks.evaluation.near_synapses import read_ids, read_neurons_near
from em_blocks.volumes.labels import Labels, check_sample, open_labels, placed, same_grid
from em_blocks.volumes.metadata import place_in_config
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables
from em_blocks.volumes.synapse_files import read_synapses

CreditBlock = Callable[[Block, BlockReport], Iterator[tuple[str, Counts]]]

SIDES = ("truth", "prediction")

# Places at which all neurons are compared, for every voxel of every synapse.
_LARGEST_REACH, _MOST_PLACES = 100, 200_000


class Opened(NamedTuple):
    """The volumes, all with one frame."""

    neurons: Labels
    truth: Labels
    prediction: Labels


class _Layout(NamedTuple):
    frame: Frame
    frame_known: bool
    shape: Triple
    chunk_shape: Triple
    identities: dict


class CreditSynapses(BlockwiseTask):
    """Find the pairs of neurons that true and predicted synapses lie between.

    A block counts, for each synapse and each pair, the voxels of the synapse within reach of both
    neurons. Matrices and scores are computed from these tables when all blocks are done, so the
    keys that choose among them may change without counting again.
    """

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {
        "mode", "min_voxels", "min_overlap", "exclude", "truth_partners", "prediction_partners"
    }

    reads: ClassVar[tuple[str, ...]] = ("neurons", "truth", "prediction",)

    fits_block: ClassVar[bool] = False

    kind: Literal["credit_synapses"]
    neurons: VolumeRef = Field(
        description="Volume of neurons: path.zarr/dataset, or file.h5:dataset."
    )
    truth: VolumeRef = Field(
        description="Volume of true synapses, one id each. 0 is background, and so are the two "
        "largest ids of uint64, as in CREMI."
    )
    prediction: VolumeRef = Field(description="Volume of predicted synapses, likewise.")
    output: StorePath = Field(description="Folder of tables, matrices and scores.")
    reach_voxels: Annotated[int, Field(ge=1, le=_LARGEST_REACH)] | None = Field(
        None, description="How far a synapse may be from both neurons: one step to the 6 neighbours "
        "of a voxel, then steps to the 4 in its section; the sum of both."
    )
    reach_nm: PositiveFloat | None = Field(
        None, description="The same in nm, in all directions; instead of reach_voxels."
    )
    contacts: bool = Field(
        False, description="Also measure the contact zones of all pairs, with or without synapse."
    )
    mode: Mode = Field(
        "all", description="all: a synapse is credited to every pair in reach; best: only to the one "
        "with most of its voxels; directed: to known partners, from pre to post."
    )
    min_voxels: PositiveInt = Field(50, description="Neurons with fewer voxels are left out.")
    min_overlap: PositiveInt = Field(
        1, description="Voxels that a synapse has at least within reach of both neurons."
    )
    exclude: tuple[Id, ...] = Field((), description="Neurons that are left out.")
    truth_partners: LocalPath | None = Field(
        None, description="File of true partners, for the mode directed."
    )
    prediction_partners: LocalPath | None = Field(
        None, description="File of predicted partners, for the mode directed."
    )
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that are counted at once. Default: whole chunks of the "
        "neurons, about 8 million voxels."
    )

    @model_validator(mode="after")
    def _one_reach(self) -> Self:
        if (self.reach_voxels is None) == (self.reach_nm is None):
            raise ValueError(
                "one of reach_voxels and reach_nm is needed, got "
                f"{'none' if self.reach_nm is None else 'both'}"
            )
        return self

    @model_validator(mode="after")
    def _partners_if_directed(self) -> Self:
        given = [p for p in (self.truth_partners, self.prediction_partners) if p is not None]
        needed = 2 if self.mode == "directed" else 0
        if len(given) != needed:
            raise ValueError(
                f"the mode {self.mode} needs {'both' if needed else 'none'} of truth_partners and "
                f"prediction_partners, got {len(given)} of them"
            )
        return self

    def grid(self) -> BlockGrid:
        layout = self._layout
        block_shape = self.block_shape or usual_block(layout.chunk_shape)
        return BlockGrid(layout.frame, layout.shape, block_shape)

    def inputs(self) -> dict:
        return self._layout.identities

    def output_specs(self) -> list[TableOutput]:
        names = [*SIDES, "neurons", *(["contacts"] if self.contacts else [])]
        return [TableOutput(name, store.join(self.output, "tables", name)) for name in names]

    def outputs_root(self) -> str:
        return self.output

    def read_context(self) -> Triple:
        return tuple(context_of(self.shifts))

    def read_shape(self) -> Triple:
        context = self.read_context()
        return tuple(b + 2 * c for b, c in zip(self.grid().block_shape, context, strict=True))

    def stored_config(self) -> dict:
        return super().stored_config() | {"exclude": [str(id) for id in self.exclude]}

    def check(self) -> None:
        """Raise an `EmBlocksError` unless reach and partners, needed at the end, can be used."""
        known = self._layout.frame_known
        if not known and (self.reach_nm is not None or self.mode == "directed"):
            raise ConfigError(
                f"None of {self.neurons}, {self.truth} and {self.prediction} says how large its "
                "voxels are, so reach_nm and the positions of partners mean nothing. Add the "
                "attributes resolution and offset (nm, zyx) to a dataset, say it in the config: "
                f"{place_in_config('...')}, or use reach_voxels."
            )
        if self.reach_nm is not None:
            self._check_reach(steps_in_nm(self.reach_nm, self._layout.frame.voxel_size))
        self.partners()
        with self.opened() as volumes:
            for labels in volumes:
                check_sample(labels)

    def partners(self) -> dict[str, Synapses]:
        """The known partners by side; none unless directed."""
        if self.mode != "directed":
            return {}
        frame = self._layout.frame
        return {
            side: read_synapses(getattr(self, f"{side}_partners"), voxel_size=frame.voxel_size)
            for side in SIDES
        }

    def _check_reach(self, steps: Triple) -> None:
        n = math.prod(2 * step + 1 for step in steps)
        if 1 < n <= _MOST_PLACES:
            return
        raise ConfigError(
            f"reach_nm = {self.reach_nm} is {steps} voxels of {self._layout.frame.voxel_size} nm "
            "(zyx). Synapses lie between neurons that nearly touch: at least one voxel along one axis "
            f"is needed, and so far that a box of {_MOST_PLACES} voxels holds what is in reach is "
            "possible. Correct the reach, or the voxel size of the volumes."
        )

    @cached_property
    def shifts(self) -> np.ndarray:
        """List the shifts within reach of a voxel, (n, 3) voxels."""
        if self.reach_voxels is not None:
            return reach_in_voxels(self.reach_voxels)
        return reach_in_nm(self.reach_nm, self._layout.frame.voxel_size)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}
        with self.crediting() as credit:

            def process(block: Block, report: BlockReport) -> None:
                for name, found in credit(block, report):
                    report.counts[name] = len(found)
                    with report.measure("write"):
                        report.write_table(name, tables[name], block, found.columns())

            yield process

    @contextmanager
    def crediting(self) -> Iterator[CreditBlock]:
        """Open all volumes; yield the function that does a block, table by table."""
        with self.opened() as volumes:

            def credit(block: Block, report: BlockReport) -> Iterator[tuple[str, Counts]]:
                box = block.write_box
                with report.measure("read"):
                    neurons = read_ids(volumes.neurons, box)
                with report.measure("compute"):
                    sizes = count_sizes(neurons)
                yield "neurons", sizes
                with report.measure("read"):
                    synapses = {
                        side: read_ids(getattr(volumes, side), box) for side in SIDES
                    }
                    near = read_neurons_near(
                        self._visited(synapses), volumes.neurons, neurons, box,
                        context_of(self.shifts),
                    )
                for side in SIDES:
                    with report.measure("compute"):
                        found = near.credit(synapses[side], self.shifts)
                    yield side, found
                if self.contacts:
                    with report.measure("compute"):
                        zones = near.contacts(self.shifts)
                    yield "contacts", zones

            yield credit

    def _visited(self, synapses: dict[str, np.ndarray]) -> np.ndarray:
        """Voxels of a block whose surroundings are looked at."""
        truth, prediction = synapses.values()
        return np.ones(truth.shape, bool) if self.contacts else (truth != 0) | (prediction != 0)

    def stored(self, name: str, blocks: Iterable[Block]) -> Iterator[Counts]:
        """The tables of one kind in blocks that are done."""
        (path,) = (spec.path for spec in self.output_specs() if spec.name == name)
        tables = BlockTables(path)
        return (KINDS_OF_TABLES[name](**tables.read(block.key)) for block in blocks)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """All volumes, on one grid."""
        with self._as_they_are() as volumes:
            placed_volumes = placed(volumes)
            same_grid(placed_volumes)
            yield Opened(*placed_volumes)

    @contextmanager
    def _as_they_are(self) -> Iterator[list[Labels]]:
        with ExitStack() as stack:
            paths = (self.neurons, self.truth, self.prediction)
            yield [stack.enter_context(open_labels(path, negative=SIGNED)) for path in paths]

    @cached_property
    def _layout(self) -> _Layout:
        with self._as_they_are() as volumes:
            frame_known = any(v.frame is not None for v in volumes)
        with self.opened() as volumes:
            frame, shape = same_grid(volumes)
            identities = {
                name: labels_identity(labels) for name, labels in volumes._asdict().items()
            }
            chunk_shape = volumes.neurons.chunk_shape
        return _Layout(frame, frame_known, shape, chunk_shape, identities)


KINDS_OF_TABLES = {"truth": Credits, "prediction": Credits, "neurons": Sizes, "contacts": Contacts}
