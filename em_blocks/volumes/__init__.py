"""Volumes in world units, whatever the format and wherever they are stored."""

from em_blocks.volumes.volume import Outside, Volume

__all__ = ["Outside", "Volume"]
