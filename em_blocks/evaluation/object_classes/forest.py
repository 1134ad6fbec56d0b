"""Classes of all objects, learned from examples by a random forest.

Breiman 2001, doi:10.1023/A:1010933404324.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.evaluation.object_classes.cluster import flat
from em_blocks.evaluation.object_classes.config import ClassifyObjects
from em_blocks.evaluation.object_classes.examples import Examples, read_examples
from em_blocks.evaluation.object_classes.results import write_report, write_table
from em_blocks.evaluation.object_classes.scaling import without_missing
from em_blocks.evaluation.object_classes.tables import read_joined
from em_blocks.volumes.stores.whole_files import written_whole

_AT_ONCE = 100_000
"""Objects whose probabilities are computed at once: every tree makes a table of them."""


@dataclass(frozen=True)
class Classified:
    """Objects, and the probabilities of their classes."""

    task: ClassifyObjects
    ids: np.ndarray
    """uint64, ascending."""
    names: list[str]
    """Columns that classes were told by."""
    classes: list[str]
    probabilities: np.ndarray
    """(objects, classes), of all trees; of examples, of the trees that did not see them."""
    importances: np.ndarray
    """(columns,), the share of each in making nodes pure; their sum is 1."""
    examples: Examples
    dropped: np.ndarray
    """Ids that were left out because of missing values."""
    n_unmatched: int

    @property
    def told(self) -> np.ndarray:
        """The number of the most probable class of every object."""
        return self.probabilities.argmax(axis=1)

    @property
    def margins(self) -> np.ndarray:
        """How much more probable the first class of an object is than the second one."""
        ordered = np.sort(self.probabilities, axis=1)
        return ordered[:, -1] - ordered[:, -2]

    @property
    def uncertain(self) -> np.ndarray:
        """Rows of objects without a label whose margins are smallest, the smallest first."""
        others = np.setdiff1d(np.arange(len(self.ids)), self.examples.rows)
        order = np.argsort(self.margins[others], kind="stable")
        return others[order[: self.task.uncertain]]

    def document(self) -> dict:
        """Return the report."""
        told = np.array(self.classes)[self.told]
        right = told[self.examples.rows] == self.examples.names
        sizes = {name: int((told == name).sum()) for name in self.classes}
        importances = dict(zip(self.names, self.importances.tolist(), strict=True))
        return {
            "sizes": sizes, "out_of_bag_accuracy": float(right.mean()),
            "classes": {
                name: {
                    "examples": n,
                    "out_of_bag_recall": float(right[self.examples.names == name].mean()),
                }
                for name, n in self.examples.counts.items()
            },
            "importances": dict(sorted(importances.items(), key=lambda item: -item[1])),
            "objects": len(self.ids),
            "dropped": {"missing_values": len(self.dropped), "missing_ids": self.n_unmatched},
            "config": self.task.model_dump(mode="json"),
        }


def classify_objects(task: ClassifyObjects) -> Classified:
    """Read tables and examples, and tell the class of every object.

    Raises
    ------
    ConfigError
        If tables, columns or examples do not fit, or there are too few examples.
    """
    joined = read_joined(task.tables, task.columns, drop_unmatched=task.missing_ids == "drop")
    names, values = flat(joined)
    values, kept = without_missing(values, names, joined.ids, task.missing)
    ids, dropped = joined.ids[kept], joined.ids[~kept]
    examples = read_examples(task.classes, ids, dropped)
    _check_enough(examples, task.classes)
    classes, probabilities, importances = _learned(values, examples, task)
    return Classified(
        task, ids, names, classes, probabilities, importances, examples, dropped, joined.n_unmatched
    )


def _check_enough(examples: Examples, path: Path) -> None:
    few = [name for name, n in examples.counts.items() if n < 2]
    if len(examples.counts) < 2 or few:
        told = ", ".join(f"{name} {n}" for name, n in examples.counts.items())
        raise ConfigError(
            f"{path} has these examples of objects in the tables: {told}. At least two classes with two "
            "examples each are needed: a class is learned from some, and tested on others. Label more."
        )


def _learned(
    values: np.ndarray, examples: Examples, task: ClassifyObjects
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return classes, probabilities (objects, classes) and importances (columns,)."""
    from sklearn.ensemble import RandomForestClassifier

    # Balanced: a class that was labelled less is not less probable for that.
    forest = RandomForestClassifier(
        task.trees, class_weight="balanced", oob_score=True, random_state=task.seed, n_jobs=-1
    ).fit(values[examples.rows], examples.names)
    pieces = np.array_split(values, -(-len(values) // _AT_ONCE))
    probabilities = np.concatenate([forest.predict_proba(piece) for piece in pieces])
    probabilities[examples.rows] = forest.oob_decision_function_
    return forest.classes_.tolist(), probabilities, forest.feature_importances_


def write_classes(found: Classified, report: dict) -> list[Path]:
    """Write classes.parquet and .csv, uncertain.csv and report.json; return their paths."""
    folder = found.task.output
    columns = _columns(found)
    written = write_table(folder / "classes", columns)
    rows = found.uncertain
    with written_whole(folder / "uncertain.csv") as partial:
        _write_uncertain(partial, {name: columns[name][rows] for name in ("id", "guess", "margin")})
    return [*written, folder / "uncertain.csv", write_report(folder, report)]


def _write_uncertain(path: Path, columns: dict) -> None:
    import pyarrow as pa
    import pyarrow.csv

    # With an empty column for the label: filled in, the file is one of examples.
    empty = pa.array([""] * len(columns["id"]))
    pyarrow.csv.write_csv(pa.table({"id": columns["id"], "class": empty} | columns), path)


def _columns(found: Classified) -> dict[str, np.ndarray]:
    names = np.array(found.classes)
    given = np.full(len(found.ids), "", object)
    given[found.examples.rows] = found.examples.names
    told = names[found.told]
    return {
        "id": found.ids, "class": np.where(given == "", told, given), "guess": told,
        "probability": found.probabilities.max(axis=1), "margin": found.margins,
        "example": given != "",
    } | {f"p_{name}": found.probabilities[:, n] for n, name in enumerate(found.classes)}
