"""Instances: one label for every object, what a network learns of them, and how maps become labels."""
