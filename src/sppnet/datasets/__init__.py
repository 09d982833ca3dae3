"""Data sets of every format: read, judged, split, and written."""
