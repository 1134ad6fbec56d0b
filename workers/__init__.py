"""Processes that the scheduler starts; each takes the path of a session file."""
