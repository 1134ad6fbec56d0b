"""Scheduling of blocks: dispatch, gateway, monitors."""
