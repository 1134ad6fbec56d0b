"""The page of a run: a small web server that reads the run's database and never writes."""
