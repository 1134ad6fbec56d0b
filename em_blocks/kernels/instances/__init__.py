"""Instances: one label for every object of a kind, such as mitochondria."""
