"""Graphs of neurons and their statistics."""
