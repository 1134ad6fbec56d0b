"""Volumes, annotations and files for neuroglancer."""
