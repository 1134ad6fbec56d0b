"""One thin script per job."""
