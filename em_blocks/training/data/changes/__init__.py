"""Changes of single sections in samples, as gunpowder nodes."""
