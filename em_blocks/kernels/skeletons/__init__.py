"""Neurons as skeletons: text, mapping and run length."""
