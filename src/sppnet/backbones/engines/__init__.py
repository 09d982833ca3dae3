"""What runs frozen convolutions without torch: graphs of ONNX Runtime, in float32 and in int8."""
