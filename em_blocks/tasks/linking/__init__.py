"""Slabs that were labelled each for itself, as one volume."""
