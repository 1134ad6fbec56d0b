"""``em-blocks view``."""
