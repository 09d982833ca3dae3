"""Classification of images of any size: networks, training, files, measurement."""
