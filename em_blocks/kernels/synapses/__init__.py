"""Synapses as a table; detection, pairing, filters and clefts."""
