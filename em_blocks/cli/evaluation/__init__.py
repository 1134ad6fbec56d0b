"""Verbs that score results."""
