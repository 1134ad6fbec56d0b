"""From a task to finished blocks: checks, scheduling, workers, reports."""
