"""sppnet: spatial pyramid pooling networks (He et al., 2014) for detection and classification."""
