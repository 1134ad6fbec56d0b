"""Synaptic partners in MongoDB: the rows of one run in the collection ``synapses``."""

from __future__ import annotations

from typing import Any

import pymongo

from em_blocks.db.rows import RowStore
from em_blocks.db.schemas.synapses import SYNAPSES
from em_blocks.kernels.synapses.table import Synapses


class SynapseStore(RowStore[Synapses]):
    """A `RowStore` of synapses, as scripts open it.

    Parameters
    ----------
    client, db_name, run, **options
        As of `RowStore`.
    """

    def __init__(self, client: pymongo.MongoClient, db_name: str, run: str, **options: Any):
        super().__init__(client, db_name, run, SYNAPSES, **options)
