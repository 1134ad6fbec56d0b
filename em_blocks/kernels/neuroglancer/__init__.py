"""Bytes of the neuroglancer precomputed formats."""
