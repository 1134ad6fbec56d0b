"""Sections in tiles, listed by a JSON file of patterns."""
