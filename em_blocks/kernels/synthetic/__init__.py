"""EM-like volumes with known truth."""
