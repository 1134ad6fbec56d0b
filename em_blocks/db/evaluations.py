"""The collection ``evaluations``: one document per segmentation that was scored."""

from __future__ import annotations

from pymongo.database import Database

from em_blocks.db.connect import OUTAGE_S, with_patience
from em_blocks.json_text import finite

_LARGEST_INTEGER = 2**63 - 1


def save_evaluations(
    database: Database, run: str, documents: dict[str, dict], *, outage_s: float = OUTAGE_S
) -> None:
    """Store the scores of a run's segmentations, replacing those of an earlier evaluation.

    Parameters
    ----------
    documents : dict
        By name of the segmentation. ``_id`` becomes ``run/name``.
    outage_s : float
        How long to wait for an unavailable database: scores may have taken hours.
    """
    with_patience(lambda: _save(database, run, documents), outage_s)


def _save(database: Database, run: str, documents: dict[str, dict]) -> None:
    collection = database["evaluations"]
    collection.create_index([("run", 1)])
    now = database.client.admin.command("hello")["localTime"]
    for name, values in documents.items():
        document = {"_id": f"{run}/{name}", "run": run, "name": name, "created": now, **values}
        collection.replace_one({"_id": document["_id"]}, _storable(finite(document)), upsert=True)
    names = [f"{run}/{name}" for name in documents]
    collection.delete_many({"run": run, "_id": {"$nin": names}})


def _storable(value):
    """Return `value` with ids beyond MongoDB's integers as text."""
    if isinstance(value, dict):
        # A dot in a name would open a level in queries.
        return {key.replace(".", "_"): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return str(value) if isinstance(value, int) and value > _LARGEST_INTEGER else value
