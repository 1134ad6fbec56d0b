"""Classes of objects from tables of features: found without examples, or learned from some."""
