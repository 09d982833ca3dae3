"""Convolutions that end at a feature map: registry, weights files, adapters, receptive fields."""
