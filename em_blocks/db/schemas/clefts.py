"""The collection ``clefts``: one document per synaptic cleft that partners face."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from em_blocks.db.schemas.base import DocumentSchema, Index

CLEFTS = DocumentSchema("clefts", [Index("run_1", ["run"])], key="cleft")
CHECKED = ["cleft", "synapses"]
"""The fields that `checksum_of_clefts` needs."""


def checksum_of_clefts(documents: Iterable[dict]) -> int:
    """Return the CRC-32 of which clefts there are, and how many partners face each."""
    crc = 0
    for document in documents:
        crc = zlib.crc32(f"{document['cleft']}:{document['synapses']} ".encode(), crc)
    return crc
