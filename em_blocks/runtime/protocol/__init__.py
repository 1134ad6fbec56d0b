"""Exchange between scheduler and workers: session file, messages, liveness probes."""
