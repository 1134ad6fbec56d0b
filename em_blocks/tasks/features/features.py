"""The table of features of all objects of a volume: the steps, and the files that they end in."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, Self, get_args

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from em_blocks.config import LocalPath, RoiConfig, Shape3, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.evaluation.count_overlaps import usual_block
from em_blocks.tasks.features.list_features import ListFeatures
from em_blocks.tasks.features.measure import Feature, MeasureFeatures
from em_blocks.tasks.objects.measures import WHOLE
from em_blocks.volumes.stores.tables import BlockTables
from em_blocks.volumes.stores.whole_files import written_whole
from em_blocks.volumes.values import describe

_DAY_S = 86400
_SUFFIX = ".parquet"


class Features(RunConfig):
    """Measure every object of a volume of ids: size, place, shape, surface, grey values.

    One pass over the blocks (``RUN.measures``) adds up integers, ``RUN.table`` makes the table of them:
    no value depends on the blocks. `output` is a Parquet file with one row per id; a CSV file of the
    same rows lies beside it. Columns, units and definitions are in docs/features.md.
    """

    kind: Literal["features"]
    labels: VolumeRef = Field(
        description="Volume of objects, by id, 0 is background: path.zarr/dataset, or file.h5:dataset."
    )
    em: VolumeRef | None = Field(
        None, description="Image of the same voxels, uint8, for the statistics of grey values."
    )
    features: tuple[Feature, ...] | None = Field(
        None, description="What to measure besides size, place and box: shape, surface, em. Default: "
        "all; em only with an image."
    )
    roi: RoiConfig | None = Field(
        None, description="Region, nm (z, y, x); objects end at its border. Default: all."
    )
    output: LocalPath = Field(description="Parquet file to write, e.g. data/mitochondria.parquet.")
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that are measured at once. Default: whole chunks, about 8 "
        "million voxels."
    )

    @field_validator("output")
    @classmethod
    def _is_parquet(cls, output: Path) -> Path:
        if output.suffix != _SUFFIX:
            raise ValueError(
                f"the table is a Parquet file, so its name must end in {_SUFFIX}, got {output.name!r}"
            )
        return output

    @model_validator(mode="after")
    def _grey_values_need_an_image(self) -> Self:
        if self.features is not None and ("em" in self.features) != (self.em is not None):
            raise ValueError(
                "'em' in 'features' and the key 'em', an image, need each other: give both or neither"
            )
        return self

    @model_validator(mode="after")
    def _no_mask(self) -> Self:
        if self.mask is not None:
            raise ValueError(
                "a 'mask' would cut objects that reach into masked blocks; leave it out, empty blocks "
                "cost little"
            )
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.measures"

    def outputs_root(self) -> str:
        return str(self.output.with_suffix(".tables"))

    def results(self) -> dict[str, str]:
        """Return the files of the table."""
        return {"table": f"{self.output}, {self._csv.name}"}

    def steps(self) -> list[BlockwiseTask]:
        """Measures of every block, and one table of them."""
        measures, table = self._folder("measures"), self._folder("table")
        whole = {"num_workers": 1, "block_timeout_s": max(self.block_timeout_s or 0.0, _DAY_S)}
        return [
            self._step(MeasureFeatures, "measures", output=measures),
            self._step(
                ListFeatures, "table", measures=measures, part_shape=self._block_shape, output=table,
                **whole,
            ),
        ]

    def publish(self) -> None:
        """Write the table as Parquet and as CSV; raise `ConfigError` if there is no object."""
        table = pa.table(BlockTables(self._folder("table")).read(WHOLE))
        if not table.num_rows:
            raise ConfigError(
                f"{self.labels} holds no object: all voxels are 0, so there is no table to write. Name "
                "the volume of ids, or another region."
            )
        for path, write in ((self.output, pq.write_table), (self._csv, pyarrow.csv.write_csv)):
            with written_whole(path) as partial:
                write(table, partial)

    @property
    def _csv(self) -> Path:
        return self.output.with_suffix(".csv")

    def _folder(self, name: str) -> str:
        return str(self.output.with_suffix(".tables") / name)

    def _step(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        """Return a step, with what all steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        (kind,) = get_args(task.model_fields["kind"].annotation)
        return task.from_dict({
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "labels": self.labels, "em": self.em, "features": self._features,
            "roi": None if self.roi is None else self.roi.model_dump(),
            "block_shape": self._block_shape, **values,
        })

    @property
    def _features(self) -> list[str]:
        """Names of the chosen groups, each once, in one order."""
        chosen = self.features
        if chosen is None:
            chosen = ("shape", "surface", *(("em",) if self.em is not None else ()))
        return [name for name in get_args(Feature) if name in chosen]

    @cached_property
    def _block_shape(self) -> tuple[int, int, int]:
        return self.block_shape or usual_block(describe(self.labels).chunk_shape)
