"""How an image was equalised, as the attribute of its volume says."""

from __future__ import annotations

from em_blocks.config import VolumeInput, path_of
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.volume import Volume


def equalized_as(volume: str | VolumeInput) -> dict | None:
    """Return the settings of the equalisation; None for an image that says of none.

    Images that are no volumes, such as HDF5, say of none either.
    """
    if detect(path_of(volume)) is None:
        return None
    return Volume.open(volume).attributes.get("equalized")


def contrast_text(equalized: dict | None) -> str:
    """Return what to say of an image with this attribute."""
    if equalized is None:
        return "says of no equalisation"
    return f"was equalised with {', '.join(f'{k} {v}' for k, v in sorted(equalized.items()))}"
