"""Where the worker process begins. The server imports this and nothing heavy: torch is loaded in the worker only."""

from __future__ import annotations

from multiprocessing.connection import Connection

__all__ = ["start_worker"]


def start_worker(connection: Connection, model: str | None, folder: str, threads: int, seed: int) -> None:
    """Import what computes, and work until the server goes away.

    Args:
        connection: to the server.
        model: detector file to start from, or None for the one that comes with the package.
        folder: where descriptions of images are kept.
        threads: of the computation.
        seed: of the teaching.
    """
    from sppnet.studio.worker import run_worker

    run_worker(connection, model, folder, threads, seed)
