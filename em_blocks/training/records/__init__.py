"""Records of trainings: files in their folder, TensorBoard curves, and the run database."""
