"""From affinities to segments."""
