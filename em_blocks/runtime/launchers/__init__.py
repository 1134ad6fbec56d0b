"""Ways to start workers, one per file."""
