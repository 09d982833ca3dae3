"""The one place that imports pyarrow: without it, the error says what to install."""

from __future__ import annotations

from sppnet.errors import MissingDependencyError

try:
    import pyarrow as pa
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingDependencyError(
        "tables of images need pyarrow, which isn't installed: pip install 'sppnet[scale]', or 'sppnet[ray]' for "
        "`sppnet scale`"
    ) from error

__all__ = ["pa", "pafs", "pq"]
