"""Small files of every kind, for the layouts of data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

W, H = 160, 120
BOX = (20, 30, 60, 80)
VOC = (
    "<annotation><folder>x</folder><filename>{name}</filename><size><width>160</width><height>120</height></size>"
    "<segmented>0</segmented><object><name>red</name><pose>Unspecified</pose><truncated>0</truncated><bndbox>"
    "<xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax></bndbox></object></annotation>"
)
YOLO = "0 0.25 0.458333333 0.25 0.416666667\n"
CSV = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
HASH = "1a2b3c4d-"


def img(*paths: Path) -> int:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (W, H), (len(str(path)) % 250, 9, 99)).save(path)
    return len(paths)


def put(path: Path, text: str | list[Any] | dict[str, Any]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def coco(*names: str, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": name, "width": W, "height": H, **more} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [20, 30, 40, 50]} for i in range(len(names))
        ],
        "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "red", "supercategory": "things"}],
    }


def three(h: Path, make: Callable[[Path, str], object], names: tuple[str, ...] = ("train", "valid", "test")) -> None:
    for split in names:
        make(h / split, f"{split}_a")
