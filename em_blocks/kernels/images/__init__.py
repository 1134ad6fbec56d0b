"""Images before a network sees them: contrast, tissue, zones that do not count, conversions."""
