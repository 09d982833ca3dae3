"""Compiled kernels that are kept on disk and run without Numba."""
