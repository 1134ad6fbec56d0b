"""Commands on tables of objects."""
