"""Pictures of sections, curves and networks."""
