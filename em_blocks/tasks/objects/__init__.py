"""Objects of predicted classes: threshold, connected components, holes, tables."""
