"""Models that travel: a setup as one folder, as ONNX and for bioimage.io, and back."""
