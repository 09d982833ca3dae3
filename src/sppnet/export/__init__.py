"""Detectors as files for other programs: ONNX."""
