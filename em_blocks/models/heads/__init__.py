"""Heads of networks, one file each."""
