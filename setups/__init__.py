"""Shipped networks: one folder each, with its config, training and weights."""
