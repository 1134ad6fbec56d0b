"""Batches made by processes of their own, in order, the same for any number of them."""
