"""What the scheduler and its workers exchange: the session file, messages, liveness probes."""
