"""The demo: a small volume, predicted, segmented, its synapses found, and all of it drawn."""
