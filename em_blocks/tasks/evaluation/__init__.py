"""Counts and assignments, block by block, from which scores are made."""
