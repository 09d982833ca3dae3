"""Spark's mapInArrow with our function, in a real Spark on this machine; skips where there is no pyspark or Java."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from scale_cases import rows_of
from sppnet import SPPDetector

pa = pytest.importorskip("pyarrow")

from sppnet.scale.arrow_map import DETECTIONS_DDL, arrow_detector  # noqa: E402 - it needs pyarrow

pytestmark = pytest.mark.usefixtures("one_thread")


def test_batches_in_batches_out(model: Path, detector: SPPDetector, images: list[Path]) -> None:
    table = pa.table({"path": [*map(str, images), "gone.jpg"]})
    done = pa.Table.from_batches(arrow_detector(str(model))(table.to_batches(max_chunksize=3))).to_pylist()
    assert [row["path"] for row in done] == table["path"].to_pylist()
    for row, path in zip(done, images, strict=False):
        assert rows_of(row) == rows_of(detector.detect(path))
    assert "no such file" in done[-1]["error"]
    assert len(done[0]["model_sha256"]) == 64


@pytest.mark.slow
def test_map_in_arrow(model: Path, detector: SPPDetector, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # otherwise the first python3 of PATH
    spark = (
        sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    )  # fmt: skip
    try:
        frame = spark.createDataFrame([(str(p),) for p in [*images, Path("gone.jpg")]], "path string").repartition(2)
        rows = frame.mapInArrow(arrow_detector(str(model)), DETECTIONS_DDL).collect()
    finally:
        spark.stop()
    found = {row["path"]: row.asDict(recursive=True) for row in rows}
    assert len(rows) == len(found) == len(images) + 1
    for path in images:
        assert rows_of(found[str(path)]) == rows_of(detector.detect(path))
    assert "no such file" in found["gone.jpg"]["error"]
