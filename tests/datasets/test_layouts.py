"""The layouts that tools really export: each gives the same box in the same image, and its splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.loading import detect_format, load_dataset, read_dataset

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


# --- labelImg, labelme, VIA, Supervisely -----------------------------------------------------------------------------


def labelimg_voc(h: Path) -> None:
    img(h / "my photos" / "a 1.JPG")
    put(h / "my photos" / "a 1.xml", VOC.format(name="a 1.JPG"))


def any_two_folders_voc(h: Path) -> None:
    for split in ("train", "val"):
        img(h / split / "pics" / "a.png")
        put(h / split / "boxes" / "a.xml", VOC.format(name="a.jpg"))


def any_two_folders_mirrored(h: Path) -> None:
    for split in ("one", "two"):
        img(h / "pics" / split / "a.png")
        put(h / "boxes" / split / "a.xml", VOC.format(name="a.png"))


def any_two_folders_yolo(h: Path) -> None:
    img(h / "pics" / "a.png", h / "pics" / "b.png")
    put(h / "txt" / "a.txt", YOLO)
    put(h / "txt" / "b.txt", YOLO)
    put(h / "txt" / "classes.txt", "red\n")


def labelme(**more: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "label": "red",
        "points": [[60, 30], [20, 80]],
        "group_id": None,
        "shape_type": "rectangle",
        "flags": {},
    }
    return {"version": "5.4.1", "flags": {}, "shapes": [shape], "imagePath": "a.jpg", "imageData": None,
            "imageHeight": H, "imageWidth": W, **more}  # fmt: skip


def labelme_elsewhere(h: Path) -> None:
    img(h / "images" / "a.jpg", h / "images" / "b.jpg", h / "images" / "c.jpg")
    put(h / "json" / "a.json", labelme(imagePath="../images/a.jpg"))
    put(h / "json" / "b.json", labelme(imagePath="..\\images\\b.jpg"))
    put(h / "json" / "c.json", labelme(imagePath="C:\\Users\\me\\c.jpg"))


def labelme_by_stem(h: Path) -> None:
    img(h / "train" / "a.png")
    put(h / "train" / "a.json", labelme(imagePath="renamed since.jpg"))


def xanylabeling_rotation(h: Path) -> None:
    img(h / "a.jpg")
    corners = [[40, 30], [60, 55], [40, 80], [20, 55]]
    shape = {"label": "red", "points": corners, "shape_type": "rotation", "direction": 0.8, "difficult": False}
    put(h / "a.json", labelme(shapes=[shape]))


def via_project(h: Path) -> None:
    img(h / "a.jpg", h / "b.jpg")
    rect = {"name": "rect", "x": 20, "y": 30, "width": 40, "height": 50}
    polygon = {"name": "polygon", "all_points_x": [20, 60, 60, 20], "all_points_y": [30, 30, 80, 80]}
    metadata = {
        "a.jpg123": {"filename": "a.jpg", "size": 123, "file_attributes": {},
                     "regions": [{"shape_attributes": rect, "region_attributes": {"color": "red"}}]},
        "b.jpg123": {"filename": "b.jpg", "size": 123, "file_attributes": {},
                     "regions": [{"shape_attributes": polygon, "region_attributes": {"class": {"red": True}}}]},
    }  # fmt: skip
    put(h / "via_project.json", {"_via_settings": {}, "_via_img_metadata": metadata, "_via_attributes": {}})


def via_1(h: Path) -> None:
    """As the balloon data set has it: folders of splits, regions numbered."""
    for split in ("train", "val"):
        img(h / split / f"{split}.jpg")
        rect = {"name": "circle", "cx": 40, "cy": 55, "r": 25}
        regions = {"0": {"shape_attributes": rect, "region_attributes": {"name": "red"}}}
        put(h / split / "via_region_data.json", {"x": {"fileref": "", "size": 1, "filename": f"{split}.jpg",
                                                       "base64_img_data": "", "regions": regions}})  # fmt: skip


def via_3_csv(h: Path) -> None:
    img(h / "a.jpg")
    put(h / "via3.csv", "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)\n"
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
        '"1_a","[""a.jpg""]",0,"[]","[2,20,30,40,50]","{""1"":""red""}"\n')  # fmt: skip


def supervisely(h: Path) -> None:
    shapes = {
        "train": {"geometryType": "rectangle", "points": {"exterior": [[20, 30], [60, 80]], "interior": []}},
        "val": {"geometryType": "polygon", "points": {"exterior": [[20, 30], [60, 30], [60, 80]], "interior": []}},
    }
    for split, shape in shapes.items():
        img(h / split / "img" / "a.jpg")
        put(h / split / "ann" / "a.jpg.json", {"description": "", "tags": [], "size": {"height": H, "width": W},
                                               "objects": [{"classTitle": "red", "tags": [], **shape}]})  # fmt: skip
    put(h / "meta.json", {"classes": [{"title": "red", "shape": "rectangle", "color": "#F00"}], "tags": []})


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco_2017(h: Path) -> None:
    for split in ("train2017", "val2017"):
        img(h / split / f"{split}.jpg")
        put(h / "annotations" / f"instances_{split}.json", coco(f"{split}.jpg"))
        put(h / "annotations" / f"captions_{split}.json",
            {"images": [{"id": 0, "file_name": f"{split}.jpg"}], "annotations": [{"image_id": 0, "caption": "x"}]})  # fmt: skip  # noqa: E501


def coco_images_of_splits(h: Path) -> None:
    for split in ("train", "val"):
        img(h / "images" / split / "1.jpg")
        put(h / "annotations" / f"{split}.json", coco("1.jpg"))


def coco_url(h: Path) -> None:
    img(h / "images" / "a.jpg")
    document = coco("a.jpg", coco_url="http://images.cocodataset.org/val2017/a.jpg")
    del document["images"][0]["file_name"]
    put(h / "labels.json", document)


def coco_windows_paths(h: Path) -> None:
    img(h / "images" / "camA" / "1.jpg", h / "images" / "camB" / "1.jpg")
    put(h / "a.json", coco("C:\\x\\camA\\1.jpg", "C:\\x\\camB\\1.jpg"))


def coco_beside_results(h: Path) -> None:
    img(h / "a.jpg")
    put(h / "instances.json", coco("./a.jpg"))
    put(h / "detections.json", [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])


def coco_float_and_text_ids(h: Path) -> None:
    img(h / "a.jpg")
    document = coco("a.jpg")
    document["images"][0]["id"] = 7.0
    document["annotations"][0] |= {"image_id": "7", "category_id": "1", "iscrowd": 0, "bbox": []}
    document["annotations"][0]["segmentation"] = [[20, 30, 60, 30, 60, 80]]
    put(h / "a.json", document)


def coco_masks(h: Path) -> None:
    """Run lengths, column by column: 40 columns of 50 pixels each, as a list and in COCO's letters."""
    img(h / "a.jpg", h / "b.jpg")
    runs = [20 * H + 30, *[50, H - 50] * 40]
    runs[-1] = W * H - sum(runs[:-1])
    document = coco("a.jpg", "b.jpg")
    for item, counts in zip(document["annotations"], (runs, rle_letters(runs)), strict=True):
        del item["bbox"]
        item["segmentation"] = {"size": [H, W], "counts": counts}
    put(h / "a.json", document)


def rle_letters(runs: list[int]) -> str:
    """As pycocotools does it, written from its description."""
    text = ""
    for i, run in enumerate(runs):
        x = run - (runs[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


# --- tables ----------------------------------------------------------------------------------------------------------


def csv_train_and_folder(h: Path) -> None:
    img(h / "train" / "a.jpg")
    put(h / "train.csv", "image_id,x_min,y_min,x_max,y_max,class_name\na,20,30,60,80,red\n")


def csv_kaggle_list(h: Path) -> None:
    img(h / "train" / "a.jpg")
    put(h / "train.csv", 'image_id,width,height,bbox,label\na,160,120,"[20.0, 30.0, 40.0, 50.0]",red\n')
    put(h / "sample_submission.csv", "image_id,PredictionString\nb,\n")


def csv_open_images(h: Path) -> None:
    img(h / "data" / "0a1b.jpg")
    put(h / "train-annotations-bbox.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"  # noqa: E501
        f"0a1b,xclick,/m/0r,1,0.125,0.375,0.25,{80 / 120},0,0\n")  # fmt: skip
    put(h / "class-descriptions-boxable.csv", "/m/0r,red\n/m/0b,blue\n")


def csv_automl(h: Path) -> None:
    img(h / "a.jpg", h / "b.jpg")
    rows = [
        f"{s},gs://bucket/x/{n}.jpg,red,0.125,0.25,,,0.375,{80 / 120},," for s, n in (("TRAIN", "a"), ("TEST", "b"))
    ]
    put(h / "export.csv", "\n".join(rows))


def csv_semicolons_utf16(h: Path) -> None:
    img(h / "Images" / "ä.jpg")
    (h / "t.csv").write_bytes("filename;left;top;width;height;class\r\nä.jpg;20;30;40;50;red\r\n".encode("utf-16"))


def csv_above(h: Path) -> None:
    img(h / "images" / "a.jpg")
    put(h / "annotations" / "labels.csv", f"{CSV}a.jpg,160,120,red,20,30,60,80\n")


def csv_absolute_elsewhere(h: Path) -> None:
    img(h / "pics" / "a.jpg")
    put(h / "t.csv", "path,x1,y1,x2,y2,class\n/home/other/project/pics/a.jpg,20,30,60,80,red\n")


# --- VOC and YOLO lists ----------------------------------------------------------------------------------------------


def voc_lists_with_extension(h: Path) -> None:
    img(h / "JPEGImages" / "a.jpg", h / "JPEGImages" / "b.jpg")
    for name in "ab":
        put(h / "Annotations" / f"{name}.xml", VOC.format(name=f"{name}.jpg"))
    put(h / "ImageSets" / "Main" / "train.txt", "a.jpg\n")
    put(h / "ImageSets" / "Main" / "val.txt", "JPEGImages/b.jpg Annotations/b.xml\n")


def oxford_pets(h: Path) -> None:
    img(h / "images" / "Cat_1.jpg", h / "images" / "dog_2.jpg", h / "images" / "dog_3.jpg")
    for name in ("Cat_1", "dog_2"):
        put(h / "annotations" / "xmls" / f"{name}.xml", VOC.format(name=f"{name}.jpg"))
    put(h / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\nCat_1 1 1 1\n")
    put(h / "annotations" / "trainval.txt", "Cat_1 1 1 1\n")
    put(h / "annotations" / "test.txt", "dog_2 1 1 1\n")


def ultralytics_lists(h: Path) -> None:
    for split in ("train", "val"):
        img(h / "images" / split / "a.jpg")
        put(h / "labels" / split / "a.txt", YOLO)
        put(h / f"{split}.txt", f"./images/{split}/a.jpg\n")
    put(h / "x.yaml", "path: ../datasets/x  # dataset root dir\ntrain: train.txt\nval: val.txt\nnames:\n  0: red\n")


def yolo_obb(h: Path) -> None:
    for split in ("train", "val"):
        img(h / "images" / split / "a.jpg")
        put(h / "labels" / split / "a.txt", "0 0.25 0.25 0.375 0.458333333 0.25 0.666666667 0.125 0.458333333\n")
    put(h / "dota.yaml", "train: images/train\nval: images/val\nnames: {0: red, 5: blue}\n")


def yolo_polygons_beside(h: Path) -> None:
    img(h / "a.jpg")
    put(h / "a.txt", "0 0.125 0.25 0.375 0.25 0.375 0.666666667 0.125 0.666666667\n")
    put(h / "classes.txt", "red\n")


def yolo_keypoints_in_box(h: Path) -> None:
    img(h / "a.jpg")
    put(h / "labels.yaml", "names: [red]\ntrain: .\n")
    put(h / "a.txt", f"{YOLO.strip()} 0.2 0.4 0.3 0.5 0 0\n" * 3)


def yolo_glob(h: Path) -> None:
    img(h / "images" / "train" / "a.jpg")
    put(h / "labels" / "train" / "a.txt", YOLO)
    put(h / "data.yaml", "names: classes.txt\ntrain: images/train/*.jpg\n")
    put(h / "classes.txt", "red\n")


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


LAYOUTS: dict[Callable[[Path], None], tuple[str, dict[str, int]]] = {
    roboflow_yolo: ("yolo", {"train": 1, "val": 1, "test": 1}),
    roboflow_coco: ("coco", {"train": 1, "valid": 1, "test": 1}),
    roboflow_voc: ("voc", {"train": 1, "valid": 1, "test": 1}),
    roboflow_tf_csv: ("csv", {"train": 1, "valid": 1, "test": 1}),
    roboflow_retinanet: ("csv", {"train": 1, "valid": 1, "test": 1}),
    roboflow_createml: ("createml", {"train": 1, "valid": 1, "test": 1}),
    roboflow_darknet: ("yolo", {"train": 1, "valid": 1, "test": 1}),
    cvat_yolo: ("yolo", {"train": 2}),
    cvat_ultralytics: ("yolo", {"train": 1, "val": 1}),
    cvat_coco: ("coco", {}),
    cvat_voc: ("voc", {"default": 1}),
    cvat_images: ("cvat", {"train": 1, "val": 1}),
    cvat_shapes: ("cvat", {}),
    cvat_video: ("cvat", {}),
    label_studio_yolo: ("yolo", {}),
    label_studio_coco: ("coco", {}),
    label_studio_coco_media: ("coco", {}),
    label_studio_voc: ("voc", {}),
    label_studio_json: ("label-studio", {}),
    label_studio_min: ("label-studio", {}),
    labelimg_voc: ("voc", {}),
    any_two_folders_voc: ("voc", {"train": 1, "val": 1}),
    any_two_folders_mirrored: ("voc", {}),
    any_two_folders_yolo: ("yolo", {}),
    labelme_elsewhere: ("labelme", {}),
    labelme_by_stem: ("labelme", {"train": 1}),
    xanylabeling_rotation: ("labelme", {}),
    via_project: ("via", {}),
    via_1: ("via", {"train": 1, "val": 1}),
    via_3_csv: ("via", {}),
    supervisely: ("supervisely", {"train": 1, "val": 1}),
    coco_2017: ("coco", {"train": 1, "val": 1}),
    coco_images_of_splits: ("coco", {"train": 1, "val": 1}),
    coco_url: ("coco", {}),
    coco_windows_paths: ("coco", {}),
    coco_beside_results: ("coco", {}),
    coco_float_and_text_ids: ("coco", {}),
    coco_masks: ("coco", {}),
    csv_train_and_folder: ("csv", {}),
    csv_kaggle_list: ("csv", {}),
    csv_open_images: ("csv", {}),
    csv_automl: ("csv", {"train": 1, "test": 1}),
    csv_semicolons_utf16: ("csv", {}),
    csv_above: ("csv", {}),
    csv_absolute_elsewhere: ("csv", {}),
    voc_lists_with_extension: ("voc", {"train": 1, "val": 1}),
    oxford_pets: ("voc", {"trainval": 1, "test": 1}),
    ultralytics_lists: ("yolo", {"train": 1, "val": 1}),
    yolo_obb: ("yolo", {"train": 1, "val": 1}),
    yolo_polygons_beside: ("yolo", {}),
    yolo_keypoints_in_box: ("yolo", {"train": 1}),
    yolo_glob: ("yolo", {"train": 1}),
    roboflow_yolov4: ("keras-yolo", {"train": 3, "valid": 3, "test": 3}),
    keras_yolo: ("keras-yolo", {"train": 2, "val": 1}),
    kitti: ("kitti", {"training": 2}),
    kitti_tao: ("kitti", {"train": 1, "val": 1}),
    fiftyone_kitti: ("kitti", {}),
    vott_json: ("vott", {}),
    vott_assets: ("vott", {}),
    vott_csv: ("csv", {}),
    fiftyone_json: ("fiftyone", {}),
    fiftyone_yolov5: ("yolo", {"train": 1, "val": 1}),
    fiftyone_yolov4: ("yolo", {}),
    fiftyone_coco: ("coco", {}),
    fiftyone_voc: ("voc", {}),
    fiftyone_cvat: ("cvat", {}),
    fiftyone_open_images: ("csv", {}),
    csv_tensorflow: ("csv", {"train": 1, "test": 1}),
    labelme2coco: ("coco", {}),
    one_folder_above: ("coco", {"train": 1, "valid": 1, "test": 1}),
}
SOME_EMPTY = (yolo_keypoints_in_box, roboflow_yolov4, keras_yolo)
MORE_IMAGES = (oxford_pets, kitti)  # of which some have no annotation


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_layout(make: Callable[[Path], None], tmp_path: Path) -> None:
    home = tmp_path / "my data"
    home.mkdir()
    make(home)
    format, splits = LAYOUTS[make]
    assert detect_format(home) == format
    raw = read_dataset(home)
    assert {name: len(ids) for name, ids in raw.splits.items()} == splits
    data = load_dataset(home, on_error="fail")
    with_box = [record for record in data if len(record)]
    assert len(with_box) == len(data) or make in SOME_EMPTY
    images = {p for p in home.rglob("*") if p.suffix.lower() in (".jpg", ".png")}
    found = {record.path for record in data}
    assert found <= images
    assert found == images or make in MORE_IMAGES
    for record in data:
        assert {data.class_names[label] for label in record.labels} <= {"red"}
        expected = (15, 30, 65, 80) if make is via_1 else BOX
        for box in record.boxes:
            np.testing.assert_allclose(box, expected, atol=0.01)


# --- the same files as other systems and people keep them ------------------------------------------------------------


def texts(h: Path) -> list[Path]:
    kinds = (".txt", ".csv", ".json", ".xml", ".yaml", ".names", ".data", ".labels")
    found = [p for p in h.rglob("*") if p.is_file() and p.suffix.lower() in kinds]
    return [p for p in found if p.read_bytes()[:2] != b"\xff\xfe"]


def byte_order_marks(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def line_ends_of_windows(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def blank_lines_at_the_end(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(path.read_bytes() + b"\n\n  \n")


def utf16(h: Path) -> None:
    for path in texts(h):
        text = path.read_bytes().decode().replace('encoding="utf-8"', 'encoding="utf-16"')
        path.write_bytes(text.encode("utf-16"))


def upper_case_of_images(h: Path) -> None:
    for path in list(h.rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))


def other_extension_of_images(h: Path) -> None:
    for path in list(h.rglob("*.jpg")):
        path.rename(path.with_suffix(".jpeg"))


def upper_case_of_labels(h: Path) -> None:
    for path in texts(h):
        if path.suffix in (".txt", ".csv", ".json", ".xml") and path.parent != h:
            path.rename(path.with_suffix(path.suffix.upper()))


def files_of_the_system(h: Path) -> None:
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._a.txt", "._a.xml", "._a.json", "._a.csv", "._data.yaml")
    for folder in [h, *(p for p in h.rglob("*") if p.is_dir())]:
        for image in [p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png")]:
            (folder / f"._{image.name}").write_bytes(b"\0\5\x16\7")
        for name in names:
            (folder / name).write_bytes(b"\0\5\x16\7")
        for name in ("__MACOSX", ".ipynb_checkpoints"):
            (folder / name).mkdir()
        (folder / "__MACOSX" / "._a.jpg").write_bytes(b"\0\5\x16\7")


def other_files(h: Path) -> None:
    put(h / "README.txt", "# hello\nworld, this, is\n")
    put(h / "requirements.txt", "torch\n")
    put(h / "package.json", {"name": "x", "version": "1"})
    put(h / "config.json", {"lr": 0.1, "images": 3})
    put(h / "build.xml", "<project><target/></project>")


def a_folder_above(h: Path) -> None:
    inner = h.parent / "inner"
    h.rename(inner)
    h.mkdir()
    inner.rename(h / "dataset-1")


CHANGES = (
    byte_order_marks,
    line_ends_of_windows,
    blank_lines_at_the_end,
    utf16,
    upper_case_of_images,
    other_extension_of_images,
    upper_case_of_labels,
    files_of_the_system,
    other_files,
    a_folder_above,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_kept_by_others(make: Callable[[Path], None], change: Callable[[Path], None], tmp_path: Path) -> None:
    home = tmp_path / "my data"
    home.mkdir()
    make(home)
    before = load_dataset(home)
    if change is other_files and make is one_folder_above:
        pytest.skip("the folder holds more than the data set")
    change(home)
    assert detect_format(home) == LAYOUTS[make][0]
    after = load_dataset(home)
    # LabelMe's JSON files lie among any others
    assert change is other_files or after.problems == before.problems == ()
    assert len(after) == len(before)
    for one, two in zip(after, before, strict=True):
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-4)
        assert one.path.stem == two.path.stem
        assert [after.class_names[k] for k in one.labels] == [before.class_names[k] for k in two.labels]
