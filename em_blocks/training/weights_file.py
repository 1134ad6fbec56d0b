"""Files of weights whose bytes follow from what they hold."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

_ABOUT = "__metadata__"
_LENGTH_BYTES = 8


def save_weights(network: nn.Module, path: Path, about: dict[str, str]) -> None:
    """Write the weights of a network as safetensors, with metadata sorted by key.

    The library writes metadata in another order each time, so that the sha256 of equal weights would
    differ. Layout: https://github.com/huggingface/safetensors#format.
    """
    # Row-major: the memory format of the training is not part of the weights.
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path, metadata=about)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(length)
        file.seek(_LENGTH_BYTES)
        file.write(_sorted(header))


def _sorted(header: bytes) -> bytes:
    """Return a header of as many bytes, whose metadata are sorted by key."""
    values = json.loads(header)
    values[_ABOUT] = dict(sorted(values[_ABOUT].items()))
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
    return text.ljust(len(header))  # the library ends headers with spaces too
