"""Data sets as labelImg, labelme, VIA, Supervisely, COCO, tables, VOC and YOLO lists have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layout_tools import CSV, VOC, YOLO, H, W, coco, img, put

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
    put(h / "t.csv", "path,x1,y1,x2,y2,class\n/elsewhere/project/pics/a.jpg,20,30,60,80,red\n")


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
