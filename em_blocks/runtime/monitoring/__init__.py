"""Progress and status of a run."""
