"""Messages of scheduler and workers: one JSON object per line, after a mutual proof.

Either side proves that it knows the secret of the run by the HMAC of the other's nonce; the secret
itself is in the private job file and never sent. Nothing is encrypted: what is sent are block
indices and names of hosts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

Key = tuple[int, int, int, int]
"""A block: step, then block index (z, y, x)."""

PINGS = 10
"""Pings in the time after which a worker is lost."""

LINE_BYTES = 65536

_encode = json.JSONEncoder(separators=(",", ":")).encode


def new_secret() -> str:
    """Return a random secret or nonce, as hex."""
    return secrets.token_hex(32)


def proof(secret: str, role: str, *parts: str) -> str:
    """Return the HMAC-SHA256 of `role` and `parts`, keyed with `secret`, as hex."""
    message = "\n".join((role, *parts)).encode()
    return hmac.new(bytes.fromhex(secret), message, hashlib.sha256).hexdigest()


def proven(given: object, secret: str, role: str, *parts: str) -> bool:
    """Return whether `given` is the right proof."""
    return isinstance(given, str) and hmac.compare_digest(
        given.encode(), proof(secret, role, *parts).encode()
    )


def encode(message: dict) -> bytes:
    """Return a message as it is sent."""
    return _encode(message).encode() + b"\n"


def decode(line: bytes) -> dict:
    """Return a received message. Raises `ValueError` if it is not a JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"a message is a JSON object, not {message!r:.100}")
    return message
