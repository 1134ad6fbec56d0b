"""Storage formats of volumes."""
