"""Affinities, watershed, region graphs and agglomeration."""
