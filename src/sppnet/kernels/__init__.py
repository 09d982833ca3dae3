"""Compiled kernels: how they are written, compiled, kept on disk, loaded and run.

``run`` shares out work over threads. ``native`` loads machine code without Numba, ``store`` is where it lies,
``compiler`` makes it, ``ahead`` makes it in a second process. ``jit``, ``vectors``, ``scratch`` and ``lines`` are what
kernels are written with; ``fallback`` chooses their plain twins where a private interface of Numba has changed.
"""
