"""What a clustering leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from em_blocks.evaluation.object_classes.cluster import Clustered, principal
from em_blocks.json_text import json_text
from em_blocks.kernels.plots.embedding import embedding
from em_blocks.volumes.stores.whole_files import written_whole

MOST_DRAWN = 20_000
"""Points of the picture: more only cover each other."""


def write_clusters(found: Clustered, report: dict) -> list[Path]:
    """Write clusters.parquet and .csv, report.json and view.png; return their paths."""
    from PIL import Image

    folder = found.task.output
    # First what may fail: nothing is written unless all of it can be.
    picture = Image.fromarray(view(found))
    written = write_table(folder / "clusters", _columns(found))
    written.append(write_report(folder, report))
    with written_whole(folder / "view.png") as partial:
        picture.save(partial)
    return [*written, folder / "view.png"]


def write_table(path: Path, columns: dict) -> list[Path]:
    """Write columns as Parquet and as CSV; `path` is without suffix."""
    table, paths = pa.table(columns), [path.with_name(path.name + s) for s in (".parquet", ".csv")]
    for one, write in zip(paths, (pq.write_table, pyarrow.csv.write_csv), strict=True):
        with written_whole(one) as partial:
            write(table, partial)
    return paths


def write_report(folder: Path, report: dict) -> Path:
    """Write report.json."""
    with written_whole(folder / "report.json") as partial:
        partial.write_text(json_text(report, indent=2) + "\n")
    return folder / "report.json"


def _columns(found: Clustered) -> dict:
    every = {} if found.stability is None else found.stability.clusters
    return {"id": found.ids, "cluster": found.clusters} | {
        f"cluster_at_{resolution:g}": clusters for resolution, clusters in every.items()
    }


def view(found: Clustered) -> np.ndarray:
    """Draw objects on a plane, as (y, x, 3) uint8; of many, a random part."""
    points, rows = _plane(found), np.arange(len(found.ids))
    if len(rows) > MOST_DRAWN:
        random = np.random.default_rng(found.task.seed)
        rows = np.sort(random.choice(len(rows), MOST_DRAWN, replace=False))
    name = "t-SNE" if found.task.view == "tsne" else "Principal components"
    part = f", {len(rows)} of {len(found.ids)} objects" if len(rows) < len(found.ids) else ""
    return embedding(
        points[rows], found.clusters[rows], f"{name}{part}: a view of clusters, not evidence for them"
    )


def _plane(found: Clustered) -> np.ndarray:
    """Return two coordinates of every object."""
    if found.task.view == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(found.ids) - 1) / 3)
        return TSNE(perplexity=perplexity, init="random", random_state=found.task.seed).fit_transform(
            found.values
        )
    points = principal(found.values, min(2, found.values.shape[1]))
    return points if points.shape[1] == 2 else np.column_stack((points, np.zeros(len(points))))
