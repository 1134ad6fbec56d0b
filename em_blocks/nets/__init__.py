"""Torch modules and losses: arrays in, arrays out; no files, no database."""
