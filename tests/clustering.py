"""Tables of objects with planted classes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

# Three groups, far apart in volume and in a vector; ids above int64 are usual in EM.
CENTRES = {"round": (1.0, (0.0, 0.0)), "long": (8.0, (5.0, 0.0)), "flat": (64.0, (0.0, 5.0))}
FIRST_ID = 2**63 + 5


def planted(n=40, seed=3):
    """Ids, volumes (n,), vectors (n, 2) and classes of three times `n` objects."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(list(CENTRES), n)
    ids = FIRST_ID + rng.permutation(10 * len(classes))[: len(classes)].astype(np.uint64)
    volume = np.array([CENTRES[c][0] for c in classes]) * rng.lognormal(0, 0.1, len(classes))
    vector = np.array([CENTRES[c][1] for c in classes]) + rng.normal(0, 0.5, (len(classes), 2))
    return ids, volume, vector, classes


def write(path, columns):
    """Write columns by the suffix; 2-D arrays become columns of lists."""
    table = pa.table({
        k: pa.array(list(v)) if getattr(v, "ndim", 1) == 2 else v for k, v in columns.items()
    })
    (pq.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
    return str(path)


def write_planted(folder, order=None, **options):
    """Write two tables and classes; rows of each in another order. Returns what `planted` does."""
    ids, volume, vector, classes = found = planted(**options)
    a, b = np.random.default_rng(order or 0).permuted(np.tile(np.arange(len(ids)), (2, 1)), axis=1)
    write(folder / "shape.csv", {"id": ids[a], "volume": volume[a]})
    write(folder / "net.parquet", {"id": ids[b], "latent": vector[b]})
    write(folder / "classes.csv", {"id": ids, "class": classes})
    return found


def config(folder, **values):
    """Write a config of clusters of the planted objects; None takes a key out."""
    every = {
        "kind": "cluster_objects", "tables": ["shape.csv", "net.parquet"],
        "features": [{"column": "volume", "scaling": "log"}, "latent"],
        "method": {"name": "kmeans", "clusters": 3}, "classes": "classes.csv", "output": "found",
    } | values
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in every.items() if v is not None}))
    return path
