"""Documents as Sacred's MongoObserver writes them, for Omniboard and other readers.

Collections ``runs`` (a document per training, with ``info.metrics`` naming its curves) and ``metrics``
(a document per curve).

References
----------
Sacred 0.8, sacred/observers/mongo.py: fields and types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from bson import ObjectId
from pymongo.database import Database

from em_blocks.db.trainings.run_database import run_database
from em_blocks.db.trainings.series import Series
from em_blocks.db.trainings.store import storable

_NAME = "sacred"


@contextmanager
def sacred_database(address: str) -> Iterator[Database]:
    """Open the database at an address, as of the run database; named sacred unless a URI says more."""
    with run_database(address, _NAME) as store:
        yield store.database


def write_run(database: Database, uid: str, run: dict, curves: Mapping[str, Series]) -> int:
    """Write a run and its curves, replacing those of an earlier export.

    Parameters
    ----------
    database : pymongo.Database
    uid : str
        Identity of the training, kept in ``info.em_blocks``.
    run : dict
        Its fields but `_id` and ``info``.
    curves : mapping of name to Series

    Returns
    -------
    int
        The `_id` of the run: that of an earlier export, else the next number.
    """
    runs, metrics = database["runs"], database["metrics"]
    there = runs.find_one({"info.em_blocks": uid}, {"_id": 1})
    if there:
        metrics.delete_many({"run_id": there["_id"]})
    last = runs.find_one({}, {"_id": 1}, sort=[("_id", -1)])
    number = there["_id"] if there else 1 + (last["_id"] if last else 0)
    names = []
    for name, series in sorted(curves.items()):
        key = ObjectId()
        metrics.insert_one({
            "_id": key, "run_id": number, "name": name, "steps": series.steps,
            "values": [float("nan") if value is None else value for value in series.values],
            "timestamps": [_naive(time) for time in series.times],
        })
        names.append({"name": name, "id": str(key)})
    info = {"em_blocks": uid, "metrics": names}
    runs.replace_one({"_id": number}, {**storable(run), "info": info}, upsert=True)
    return number


def _naive(time: float) -> datetime:
    """Return a time as Sacred has it: UTC without saying so."""
    return datetime.fromtimestamp(time, UTC).replace(tzinfo=None)
