"""A cluster of Ray on this machine, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["RUN", "two_raylets"]

RUN = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
"""The program, for a process of its own: so that it can be killed, and so that Ray is gone with it."""


@contextmanager
def two_raylets(environment: Mapping[str, str] | None = None, **second: Any) -> Iterator[Any]:
    """Two raylets of a core each. Whatever becomes of the tests, they are stopped.

    Some settings of Ray are others than usual. Its processes give way to all others (niceness 15), so that beside other
    tests they would hardly run. It asks each raylet every three seconds whether it lives, five times. And it
    doesn't start processes before a driver asks for them: most of these would do nothing here.

    Args:
        environment: variables of all processes of the cluster.
        second: what the second raylet is told to have.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **(environment or {})}.items():
            patch.setenv(name, value)
        settings = {
            "worker_niceness": 0,
            "health_check_initial_delay_ms": 1000,
            "health_check_period_ms": 500,
            "prestart_worker_first_driver": False,
        }
        head = {
            "num_cpus": 1,
            "object_store_memory": 200_000_000,
            "include_dashboard": False,
            "_system_config": settings,
        }
        cluster = Cluster(True, head_node_args=head)
        cluster.add_node(**({"num_cpus": 1, "object_store_memory": 200_000_000} | second))
        try:
            yield cluster
        finally:
            cluster.shutdown()
