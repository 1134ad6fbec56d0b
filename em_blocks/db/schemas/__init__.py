"""Schemas of the collections of rows: columns of a table to documents, and back."""
