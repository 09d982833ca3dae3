"""One file for each format; each reads and writes."""
