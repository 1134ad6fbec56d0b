"""JSON that every reader understands: NaN and infinity are no JSON, and become null."""

from __future__ import annotations

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """The same nested value, with None for every float that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, **options: Any) -> str:
    """As `json.dumps`, with null for every number that is NaN or infinite."""
    return json.dumps(finite(value), allow_nan=False, **options)
