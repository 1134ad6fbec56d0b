"""Skeletons from SWC files."""
