"""Verbs that work on any run."""
