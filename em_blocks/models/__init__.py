"""Setups: networks, their configs and weights."""
