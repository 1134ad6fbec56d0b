"""Training batches from volumes."""
