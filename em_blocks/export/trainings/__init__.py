"""Recorded trainings for other programs: CSV, TensorBoard, MLflow, Sacred."""
