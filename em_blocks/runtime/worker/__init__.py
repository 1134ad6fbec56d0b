"""The process that works on blocks."""
