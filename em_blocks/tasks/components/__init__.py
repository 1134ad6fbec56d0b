"""Connected components over the blocks of a volume."""
