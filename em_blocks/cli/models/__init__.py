"""Verbs of models that travel."""
