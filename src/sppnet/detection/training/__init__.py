"""Training of the layers behind the pooling."""
