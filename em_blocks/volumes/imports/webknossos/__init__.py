"""Data sets of WEBKNOSSOS: its folder of layers and magnifications."""
