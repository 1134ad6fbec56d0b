"""What is clustered or classified, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from em_blocks.config import LocalPath, StrictModel
from em_blocks.evaluation.object_classes.methods import LeidenOptions, Method
from em_blocks.evaluation.object_classes.scaling import Missing, Scaling

Weight = Annotated[float, Field(gt=0)]
_COLUMN = (
    'Name of a column, of a vector (a column of lists, or NAME_0, NAME_1, ...), or a pattern such as '
    '"latent_*".'
)


class Feature(StrictModel):
    """Columns, and how much they count."""

    column: str = Field(min_length=1, description=_COLUMN)
    scaling: Scaling = Field(
        "standard", description="Of every column for itself: standard is mean 0 and deviation 1, robust "
        "median 0 and interquartile range 1, min_max from 0 to 1, log the logarithm and then standard."
    )
    weight: Weight | tuple[Weight, ...] = Field(
        1.0, description="Factor of scaled values; of a vector also one for each of its columns."
    )


def _read_feature(value: Any) -> Any:
    """A string is a column with the usual scaling."""
    return {"column": value} if isinstance(value, str) else value


FeatureRef = Annotated[Feature, BeforeValidator(_read_feature, json_schema_input_type=str | Feature)]


class ObjectTables(StrictModel):
    """Tables of objects, and what is done where they are not complete."""

    tables: tuple[LocalPath, ...] = Field(
        min_length=1, description="Parquet or CSV files with a column `id`; they are joined by it, in "
        "any order of rows."
    )
    missing: Missing = Field(
        "refuse", description="What is done with NaN and infinite values: they are an error, their "
        "objects are left out, or the median of the column is used."
    )
    missing_ids: Literal["refuse", "drop"] = Field(
        "refuse", description="What is done with ids that some of the tables lack."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")
    output: LocalPath = Field(description="Folder for results.")

    @property
    def inputs(self) -> dict[str, Path]:
        """Files that are read, by the names of their keys."""
        named = {f"tables[{n}]": path for n, path in enumerate(self.tables)}
        classes = getattr(self, "classes", None)
        return named if classes is None else named | {"classes": classes}


class ClusterObjects(ObjectTables):
    """Find clusters of similar objects; examples of classes, if there are any, only score them."""

    kind: Literal["cluster_objects"]
    features: tuple[FeatureRef, ...] = Field(
        min_length=1, description='Columns to compare objects by; a name stands for {"column": NAME}.'
    )
    components: int | None = Field(
        None, ge=1, description="Principal components of the scaled features that are used instead of "
        "them; advisable for leiden with more than some 15 columns. Default: all features."
    )
    method: Method
    classes: LocalPath | None = Field(
        None, description="CSV or Parquet of `id` and `class`: clusters are compared with them."
    )
    view: Literal["pca", "tsne"] = Field(
        "pca", description="How view.png puts objects on a plane; tsne for at most 10000 objects."
    )

    @model_validator(mode="after")
    def _resolution_is_tried(self) -> Self:
        method = self.method
        if isinstance(method, LeidenOptions) and method.resolution not in (None, *method.resolutions):
            raise ValueError(
                f"method.resolution {method.resolution:g} is none of method.resolutions "
                f"{list(method.resolutions)}; add it there"
            )
        return self


class ClassifyObjects(ObjectTables):
    """Learn classes from some examples, and tell that of every object."""

    kind: Literal["classify_objects"]
    columns: tuple[str, ...] = Field(
        min_length=1, description="What classes are told by. " + _COLUMN
    )
    classes: LocalPath = Field(description="CSV or Parquet of `id` and `class`: the examples.")
    trees: int = Field(500, ge=50, description="Of the random forest.")
    uncertain: int = Field(
        50, ge=1, description="Objects in uncertain.csv, whose labels would help most."
    )
