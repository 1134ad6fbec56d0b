"""A look at all data of a training before it starts: what refuses it, and what is remarkable."""
