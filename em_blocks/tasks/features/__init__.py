"""Features of objects: measured in every block, one table of all, documents in the database."""
