"""Data sets as Roboflow, CVAT and Label Studio export them."""

from __future__ import annotations

from pathlib import Path

from layout_tools import CSV, HASH, VOC, YOLO, H, W, coco, img, put, three

# --- Roboflow --------------------------------------------------------------------------------------------------------


def roboflow_yolo(h: Path) -> None:
    for split in ("train", "valid", "test"):
        img(h / split / "images" / "a_jpg.rf.0123.jpg")
        put(h / split / "labels" / "a_jpg.rf.0123.txt", YOLO)
    put(h / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['red']\n"
        "roboflow:\n  workspace: x\n")  # fmt: skip
    put(h / "README.dataset.txt", "# x > 2024\n")
    put(h / "README.roboflow.txt", "\nx - v1\n")


def roboflow_coco(h: Path) -> None:
    three(h, lambda d, a: img(d / f"{a}.jpg") + put(d / "_annotations.coco.json", coco(f"{a}.jpg")))


def roboflow_voc(h: Path) -> None:
    three(h, lambda d, a: img(d / f"{a}.jpg") + put(d / f"{a}.xml", VOC.format(name=f"{a}.jpg")))


def roboflow_tf_csv(h: Path) -> None:
    three(h, lambda d, a: img(d / f"{a}.jpg") + put(d / "_annotations.csv", f"{CSV}{a}.jpg,160,120,red,20,30,60,80\n"))


def roboflow_retinanet(h: Path) -> None:
    def make(d: Path, a: str) -> None:
        img(d / f"{a}.jpg")
        put(d / "_annotations.csv", f"{a}.jpg,20,30,60,80,red\n")
        put(d / "_classes.csv", "red,0\n")

    three(h, make)


def roboflow_createml(h: Path) -> None:
    box = {"x": 40, "y": 55, "width": 40, "height": 50}

    def make(d: Path, a: str) -> None:
        img(d / f"{a}.jpg")
        objects = [{"label": "red", "coordinates": box}]
        put(d / "_annotations.createml.json", [{"image": f"{a}.jpg", "annotations": objects}])

    three(h, make)


def roboflow_darknet(h: Path) -> None:
    def make(d: Path, a: str) -> None:
        img(d / f"{a}.jpg")
        put(d / f"{a}.txt", YOLO)
        put(d / "_darknet.labels", "red\n")

    three(h, make)


# --- CVAT ------------------------------------------------------------------------------------------------------------


def cvat_yolo(h: Path) -> None:
    img(h / "obj_train_data" / "a.jpg", h / "obj_train_data" / "b.jpg")
    put(h / "obj_train_data" / "a.txt", YOLO)
    put(h / "obj_train_data" / "b.txt", YOLO)
    put(h / "obj.names", "red\n")
    put(h / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    put(h / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def cvat_ultralytics(h: Path) -> None:
    for split in ("train", "val"):
        img(h / "images" / split / "a.jpg")
        put(h / "labels" / split / "a.txt", YOLO)
        put(h / f"{split}.txt", f"data/images/{split}/a.jpg\n")
    put(h / "data.yaml", "names:\n  0: red\npath: .\ntrain: train.txt\nval: val.txt\n")


def cvat_coco(h: Path) -> None:
    img(h / "images" / "a.jpg")
    put(h / "annotations" / "instances_default.json", coco("a.jpg"))


def cvat_voc(h: Path) -> None:
    img(h / "JPEGImages" / "a.jpg")
    put(h / "Annotations" / "a.xml", VOC.format(name="a.jpg"))
    put(h / "ImageSets" / "Main" / "default.txt", "a\n")
    put(h / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n")


def cvat_images(h: Path) -> None:
    img(h / "images" / "Train" / "a.jpg", h / "images" / "Val" / "b.jpg")
    box = '<box label="red" source="manual" occluded="0" xtl="20.00" ytl="30.00" xbr="60.00" ybr="80.00" z_order="0">'
    images = "".join(
        f'<image id="0" name="{n}.jpg" subset="{s}" task_id="1" width="160" height="120">{box}</box></image>'
        for n, s in (("a", "Train"), ("b", "Val"))
    )
    meta = "<meta><task><labels><label><name>red</name></label><label><name>blue</name></label></labels></task></meta>"
    put(h / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{images}'  # noqa: E501
        "</annotations>")  # fmt: skip


def cvat_shapes(h: Path) -> None:
    img(h / "a.jpg", h / "b.jpg", h / "c.jpg")
    shapes = (
        '<polygon label="red" points="20.0,30.0;60.0,30.0;60.0,80.0;20.0,80.0" z_order="0"/>',
        '<ellipse label="red" cx="40" cy="55" rx="20" ry="25"/>',
        '<mask label="red" rle="0, 2000" left="20" top="30" width="40" height="50"/><points label="x" points="1,1"/>',
    )
    images = "".join(
        f'<image id="{i}" name="{n}.jpg" width="160" height="120">{s}</image>'
        for i, (n, s) in enumerate(zip("abc", shapes, strict=True))
    )
    put(h / "annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")


def cvat_video(h: Path) -> None:
    img(h / "images" / "frame_000000.PNG", h / "images" / "frame_000007.PNG")
    boxes = "".join(
        f'<box frame="{n}" keyframe="1" outside="{o}" occluded="0" xtl="20" ytl="30" xbr="60" ybr="80" z_order="0"/>'
        for n, o in ((0, 0), (7, 0), (8, 1))
    )
    put(h / "annotations.xml", f'<annotations><version>1.1</version><track id="0" label="red">{boxes}</track>'
        "</annotations>")  # fmt: skip


# --- Label Studio ----------------------------------------------------------------------------------------------------


def label_studio_yolo(h: Path) -> None:
    img(h / "images" / f"{HASH}a.jpg")
    put(h / "labels" / f"{HASH}a.txt", YOLO)
    put(h / "classes.txt", "red\nblue\n")
    put(h / "notes.json", {"categories": [{"id": 0, "name": "red"}], "info": {"year": 2024}})


def label_studio_coco(h: Path) -> None:
    img(h / "images" / f"{HASH}a.jpg", h / "images" / f"{HASH}b.jpg")
    put(h / "result.json", coco(f"images/{HASH}a.jpg", f"images\\{HASH}b.jpg"))


def label_studio_coco_media(h: Path) -> None:
    """The path of the server, and the images as they were before they were uploaded."""
    img(h / "images" / "a b.jpg")
    put(h / "result.json", coco(f"../../label-studio/data/media/upload/3/{HASH}a%20b.jpg"))


def label_studio_voc(h: Path) -> None:
    img(h / "images" / f"{HASH}a.jpg")
    put(h / "Annotations" / f"{HASH}a.xml", VOC.format(name=f"{HASH}a"))


REGION = {
    "id": "x1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": W,
    "original_height": H, "image_rotation": 0,
    "value": {"x": 12.5, "y": 25.0, "width": 25.0, "height": 100 * 50 / 120, "rotation": 0, "rectanglelabels": ["red"]},
}  # fmt: skip


def label_studio_json(h: Path) -> None:
    img(h / "pics" / "a.jpg", h / "pics" / "b ö.jpg")
    names = (f"/data/upload/3/{HASH}a.jpg", "/data/local-files/?d=x%5Cpics%5Cb%20%C3%B6.jpg")
    tasks = [
        {"id": i, "data": {"image": name}, "annotations": [{"id": 5, "was_cancelled": False, "result": [REGION]}],
         "predictions": []}
        for i, name in enumerate(names)
    ]  # fmt: skip
    cancelled = {"id": 9, "data": {"image": "/x/c.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]}
    put(h / "project-1-at-2024-01-01.json", [*tasks, cancelled])


def label_studio_min(h: Path) -> None:
    img(h / "a.jpg")
    flat = {**REGION["value"], "original_width": W, "original_height": H}  # type: ignore[dict-item]
    put(h / "min.json", [{"image": f"http://host:8080/data/upload/{HASH}a.jpg", "id": 1, "label": [flat], "annotator": 1,  # noqa: E501
                          "annotation_id": 1}])  # fmt: skip
