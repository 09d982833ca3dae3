"""Data sets as YOLOv4, KITTI, VoTT and FiftyOne have them, and other odd layouts."""

from __future__ import annotations

from pathlib import Path

from layout_tools import CSV, VOC, YOLO, H, W, coco, img, put, three
from layouts_of_services import roboflow_coco
from layouts_of_tools import labelme

# --- YOLOv4, KITTI, VoTT, FiftyOne -----------------------------------------------------------------------------------


def roboflow_yolov4(h: Path) -> None:
    def make(d: Path, a: str) -> None:
        img(d / f"{a}.jpg", d / f"my {a}.jpg", d / "empty.jpg")
        put(d / "_annotations.txt", f"{a}.jpg 20,30,60,80,0 20,30,60,80,0\nmy {a}.jpg 20,30,60,80,0\nempty.jpg\n")
        put(d / "_classes.txt", "red\n")

    three(h, make)


def keras_yolo(h: Path) -> None:
    """Paths of another machine; the first image has no objects."""
    img(h / "pics" / "a.jpg", h / "pics" / "b.jpg", h / "pics" / "c.jpg")
    put(h / "train.txt", "/elsewhere/x/pics/c.jpg\n/elsewhere/x/pics/a.jpg 20,30,60,80,1\n")
    put(h / "val.txt", "/elsewhere/x/pics/b.jpg 20,30,60,80,1\n")
    put(h / "classes.txt", "blue\nred\n")


KITTI = "red 0.00 0 -1.57 20.00 30.00 60.00 80.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"


def kitti(h: Path) -> None:
    for side in (2, 3):
        img(h / "training" / f"image_{side}" / "000000.png", h / "training" / f"image_{side}" / "000001.png")
    more = "DontCare -1 -1 -10 5.00 229.89 6.10 230.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    put(h / "training" / "label_2" / "000000.txt", KITTI + more)
    put(h / "training" / "label_2" / "000001.txt", KITTI)


def kitti_tao(h: Path) -> None:
    """As NVIDIA's TAO has it."""
    for split in ("train", "val"):
        img(h / split / "images" / "a.jpg")
        put(h / split / "labels" / "a.txt", "red 0 0 0 20 30 60 80 0 0 0 0 0 0 0\n")


def fiftyone_kitti(h: Path) -> None:
    img(h / "data" / "a.jpg")
    put(h / "labels" / "a.txt", KITTI.strip() + " 0.9\n")


def vott_json(h: Path) -> None:
    img(h / "vott-json-export" / "a b.jpg")
    box = {"height": 50, "width": 40, "left": 20, "top": 30}
    asset = {"format": "jpg", "id": "x", "name": "a%20b.jpg", "path": "file:C:/x/vott-json-export/a%20b.jpg",
             "size": {"width": W, "height": H}, "state": 2, "type": 1}  # fmt: skip
    region = {"id": "r", "type": "RECTANGLE", "tags": ["red"], "boundingBox": box, "points": [{"x": 20, "y": 30}]}
    tags = [{"name": "red", "color": "#f00"}, {"name": "blue", "color": "#00f"}]
    put(h / "vott-json-export" / "my-export.json",
        {"name": "my", "securityToken": "t", "tags": tags, "id": "i", "version": "2.2.0",
         "assets": {"x": {"asset": asset, "regions": [region], "version": "2.2.0"}}})  # fmt: skip


def vott_assets(h: Path) -> None:
    for name in "ab":
        img(h / f"{name}.jpg")
        box = {"height": 50, "width": 40, "left": 20, "top": 30}
        put(h / f"{name}1234-asset.json", {"asset": {"name": f"{name}.jpg", "path": f"file:/x/{name}.jpg"},
                                           "regions": [{"tags": ["red"], "boundingBox": box}]})  # fmt: skip


def vott_csv(h: Path) -> None:
    img(h / "vott-csv-export" / "a.jpg")
    put(h / "vott-csv-export" / "my-export.csv", '"image","xmin","ymin","xmax","ymax","label"\n'
        '"a.jpg",20.0,30.0,60.0,80.0,"red"\n')  # fmt: skip


def fiftyone_json(h: Path) -> None:
    img(h / "data" / "a.jpg", h / "data" / "b.png")
    box = [0.125, 0.25, 0.25, 50 / 120]
    put(h / "labels.json", {"classes": ["blue", "red"], "labels": {
        "a": [{"label": 1, "bounding_box": box}], "b": [{"label": "red", "bounding_box": box}]}})  # fmt: skip


def fiftyone_yolov5(h: Path) -> None:
    for split in ("train", "val"):
        img(h / "images" / split / "a.jpg")
        put(h / "labels" / split / "a.txt", YOLO)
    put(h / "dataset.yaml", "names:\n  0: red\npath: /elsewhere/other/x\ntrain: ./images/train/\nval: ./images/val/\n")


def fiftyone_yolov4(h: Path) -> None:
    img(h / "data" / "a.jpg", h / "data" / "b.jpg")
    for name in "ab":
        put(h / "data" / f"{name}.txt", YOLO)
    put(h / "obj.names", "red\n")
    put(h / "images.txt", "data/a.jpg\ndata/b.jpg\n")


def fiftyone_coco(h: Path) -> None:
    img(h / "data" / "a.jpg")
    put(h / "labels.json", {"info": {"year": ""}, "licenses": [], **coco("a.jpg")})


def fiftyone_voc(h: Path) -> None:
    img(h / "data" / "a.jpg")
    put(h / "labels" / "a.xml", VOC.format(name="a.jpg"))


def fiftyone_cvat(h: Path) -> None:
    img(h / "data" / "a.jpg")
    box = '<box label="red" xtl="20" ytl="30" xbr="60" ybr="80"></box>'
    image = f'<image id="0" name="a.jpg" width="160" height="120">{box}</image>'
    put(h / "labels.xml", f"<annotations><version>1.1</version>{image}</annotations>")


def fiftyone_open_images(h: Path) -> None:
    img(h / "data" / "0a1b.jpg")
    put(h / "labels" / "detections.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded\n"
        f"0a1b,,/m/0r,1,0.125,0.375,0.25,{80 / 120},0\n")  # fmt: skip
    put(h / "metadata" / "classes.csv", "/m/0r,red\n/m/0b,blue\n")


def csv_tensorflow(h: Path) -> None:
    """As the usual script xml_to_csv writes them, with images of each split."""
    for split in ("train", "test"):
        img(h / "images" / split / f"{split}1.jpg")
        put(h / "images" / f"{split}_labels.csv", f"{CSV}{split}1.jpg,160,120,red,20,30,60,80\n")


def labelme2coco(h: Path) -> None:
    img(h / "a.jpg")
    document = coco("a.jpg")
    document["annotations"][0] |= {"iscrowd": 0, "area": 2000, "segmentation": [[20, 30, 60, 30, 60, 80, 20, 80]]}
    put(h / "dataset.json", document)
    put(h / "a.json", labelme())


def one_folder_above(h: Path) -> None:
    """As archives are often packed."""
    roboflow_coco(h / "my set.v1i.coco")
    put(h / "README.txt", "x")
