"""ONNX: graphs written without other packages, and sessions of ONNX Runtime that leave the machine to others."""
