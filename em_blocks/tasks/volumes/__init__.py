"""Import of volumes, and pyramids."""
