"""Prediction by a trained network."""
