"""Extraction of synapses, and their mapping to segments and clefts."""
