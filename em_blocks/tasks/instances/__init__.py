"""Instances of predicted maps: seeds, floods, and one label for every object of a volume."""
