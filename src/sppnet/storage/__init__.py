"""Files of this project: written in one step, read with limits, and marked as its own."""
