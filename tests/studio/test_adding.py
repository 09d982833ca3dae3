"""Files that are added later: what is taken, and that nothing gets out of the folder."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sppnet.datasets.example import make_example
from sppnet.datasets.writing import WRITTEN_FORMATS, write_dataset
from sppnet.errors import ArgumentError
from sppnet.studio.adding import AddingLimits, add_file, add_labels, safe_name


def png(value: int = 90, side: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def upload(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / "upload"
    file.write_bytes(data)
    return file


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return buffer.getvalue()


def test_an_image_is_taken_as_it_is_and_nothing_is_replaced(folder: Path, tmp_path: Path) -> None:
    file = upload(tmp_path, png(1))
    assert add_file(folder, "a/b.PNG", file).names == ["a/b.PNG"]
    assert (folder / "a" / "b.PNG").read_bytes() == png(1)
    again = add_file(folder, "a/b.PNG", file)
    assert (again.names, again.skipped) == ([], [("a/b.PNG", "is there already")])
    assert add_file(folder, "a/b.PNG", upload(tmp_path, png(2))).names == ["a/b (2).PNG"]
    assert (folder / "a" / "b.PNG").read_bytes() == png(1)
    assert {p.name for p in (folder / "a").iterdir()} == {"b.PNG", "b (2).PNG"}


def test_two_images_of_one_name_at_the_same_moment(folder: Path, tmp_path: Path) -> None:
    """Both are kept; neither replaces the other."""
    files = []
    for k in range(8):
        files.append(tmp_path / f"upload{k}")
        files[-1].write_bytes(png(k + 1))
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda file: add_file(folder, "IMG_1.png", file).names, files))
    names = [name for one in added for name in one]
    assert len(set(names)) == 8
    assert {(folder / name).read_bytes() for name in names} == {png(k + 1) for k in range(8)}


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [("a.png", b"nothing", "can't be read"), ("a.exe", png(), "no image, video"), ("a.png", b"", "can't be read")],
)
def test_what_is_no_image_is_skipped(folder: Path, tmp_path: Path, name: str, data: bytes, why: str) -> None:
    added = add_file(folder, name, upload(tmp_path, data))
    assert not added.names
    assert why in added.skipped[0][1]
    assert not [p for p in folder.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/etc/a.png", "C:\\a.png", "C:a.png", "..\\a.png", "", ".", ".hidden/a.png",
             ".sppnet-studio/a.png", "a/" * 40 + "a.png", "x" * 400 + ".png"]
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError):
        add_file(folder, name, upload(tmp_path, png()))
    assert not list(tmp_path.rglob("*.png"))


@given(st.text(max_size=60))
def test_a_safe_name_stays_below(name: str) -> None:
    try:
        path = safe_name(name)
    except ArgumentError:
        return
    assert not path.is_absolute()
    assert path.parts
    assert not any(part in ("..", ".") or part.startswith(".") or part[-1] in ". " for part in path.parts)
    assert not any(c in '\\<>:"|?*\n\x00' for c in str(path))


def test_the_images_of_an_archive(folder: Path, tmp_path: Path) -> None:
    data = archive(**{
        "one.png": png(1), "deep/two.png": png(2), "readme.txt": b"x", "../out.png": png(3), "/abs.png": png(4),
        "broken.png": b"\x89PNG", "__MACOSX/one.png": png(5), "deep/.hidden.png": png(6),
    })  # fmt: skip
    added = add_file(folder, "my set.zip", upload(tmp_path, data))
    assert sorted(added.names) == ["my set/deep/two.png", "my set/one.png"]
    assert {name for name, _ in added.skipped} == {
        "readme.txt", "../out.png", "/abs.png", "my set/broken.png", "deep/.hidden.png",
    }  # fmt: skip
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["one.png", "two.png"]


def test_a_link_in_an_archive_is_not_followed(folder: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    added = add_file(folder, "a.zip", upload(tmp_path, buffer.getvalue()))
    assert (added.names, added.skipped) == ([], [("link.png", "is a link")])


def test_a_link_in_the_folder_does_not_lead_out_of_it(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(ArgumentError, match="out of the folder"):
        add_file(folder, "link/a.png", upload(tmp_path, png()))
    assert not list(outside.iterdir())


def test_bombs_are_bounded(folder: Path, tmp_path: Path) -> None:
    limits = AddingLimits(image_bytes=1000, archive_bytes=2000, archive_files=50)
    zeros = archive(**{f"{i}.png": bytes(10_000_000) for i in range(3)})
    assert len(zeros) < 100_000
    added = add_file(folder, "bomb.zip", upload(tmp_path, zeros), limits)
    assert not added.names
    assert all("more than" in why for _, why in added.skipped)
    many = archive(**{f"{i}.png": b"" for i in range(60)})
    with pytest.raises(ArgumentError, match="more than 50 files"):
        add_file(folder, "many.zip", upload(tmp_path, many), limits)
    large = archive(**{f"{i}.png": png(i) + bytes(800) for i in range(10)})
    added = add_file(folder, "large.zip", upload(tmp_path, large), limits)
    assert 0 < len(added.names) < 5
    assert "the rest was left out" in added.skipped[-1][1]
    assert sum(p.stat().st_size for p in folder.rglob("*.png")) < 5000


def test_an_archive_that_lies_about_its_sizes(folder: Path, tmp_path: Path) -> None:
    """The directory says 10 bytes for what unpacks to 10 MB."""
    data = bytearray(archive(**{"a.png": bytes(10_000_000)}))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    add_file(folder, "lie.zip", upload(tmp_path, bytes(data)), AddingLimits(image_bytes=100_000))
    assert not [p for p in folder.rglob("*") if p.is_file()]


# an archive has the time in it, and names of tests must be the same in every process
DAMAGED = {"empty": b"", "only a mark": b"PK\x03\x04", "no archive": b"nothing", "cut": archive(a=b"x")[:-10]}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_archive(folder: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArgumentError, match="zip"):
        add_file(folder, "a.zip", upload(tmp_path, data))


def test_frames_of_a_video(folder: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    added = add_file(folder, "holiday/clip.mp4", upload(tmp_path, file.read_bytes()))
    assert added.names == [f"holiday/clip/clip_{ms:09d}.jpg" for ms in (0, 1000, 2000)]
    with Image.open(folder / added.names[1]) as image:
        assert image.size == (64, 48)
        assert np.asarray(image).mean() == pytest.approx(100, abs=12)
    again = add_file(folder, "holiday/clip.mp4", upload(tmp_path, file.read_bytes()))
    assert (again.names, again.skipped) == ([], [("holiday/clip.mp4", "3 of its images are there already")])
    with pytest.raises(ArgumentError, match=r"broken\.mp4"):
        add_file(folder, "broken.mp4", upload(tmp_path, b"nothing"))


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_the_labels_of_an_archive(folder: Path, tmp_path: Path, format: str) -> None:
    """Whatever the format: boxes and classes are those that were packed, by the new names of the images."""
    data = make_example(tmp_path / "made", 4, 2, 0)
    write_dataset(data, tmp_path / "packed", format)
    (tmp_path / "packed" / "notes.md").write_text("drawn in spring")
    with zipfile.ZipFile(tmp_path / "upload", "w") as out:
        for path in sorted((tmp_path / "packed").rglob("*")):
            if path.is_file():
                out.write(path, f"set/{path.relative_to(tmp_path / 'packed').as_posix()}")
    added = add_file(folder, "holiday.zip", tmp_path / "upload")
    assert len(added.names) == 4
    assert added.skipped == [("set/notes.md", "is no image")]
    assert added.labels is not None
    assert set(added.labels.boxes) == set(added.names)
    for record in data:
        (name,) = (n for n in added.names if Path(n).stem == record.path.stem)
        found = sorted((*box[:4], added.labels.class_names[int(box[4])]) for box in added.labels.boxes[name])
        wanted = sorted(
            (*box, data.class_names[c]) for box, c in zip(record.boxes.tolist(), record.labels, strict=True)
        )
        for mine, other in zip(found, wanted, strict=True):
            assert mine[4] == other[4]
            assert mine[:4] == pytest.approx(other[:4], abs=0.51)
    assert {p.suffix for p in tmp_path.glob("images/**/*.*")} == {".jpg"}  # no annotation stays in the folder
    again = add_file(folder, "holiday.zip", tmp_path / "upload")  # the images are there: their labels are read, too
    assert again.names == []
    assert again.labels == added.labels


def test_labels_of_an_archive_that_lead_elsewhere_or_are_damaged(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    row = {"bbox": [1, 1, 9, 9], "category_id": 1, "area": 81, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20},
                   {"id": 2, "file_name": str(tmp_path / "secret.png"), "width": 20, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1} | row, {"id": 2, "image_id": 2} | row],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    coco = json.dumps(document).encode()
    added = add_file(folder, "a.zip", upload(tmp_path, archive(**{"a.png": png(1), "labels.json": coco})))
    assert added.labels is not None
    assert added.labels.boxes == {"a/a.png": [(1.0, 1.0, 10.0, 10.0, 0)]}
    damaged = coco.replace(b'"bbox"', b'"box"')
    added = add_file(folder, "b.zip", upload(tmp_path, archive(**{"a.png": png(1), "labels.json": damaged})))
    assert added.names == ["b/a.png"]
    assert added.labels is not None
    assert added.labels.boxes == {}  # and it is not finished
    assert "has bbox None" in added.skipped[0][1]
    limits = AddingLimits(label_bytes=100)
    added = add_file(folder, "c.zip", upload(tmp_path, archive(**{"a.png": png(1), "labels.json": coco})), limits)
    assert added.names == ["c/a.png"]
    assert any("annotations have more than" in why for _, why in added.skipped)
    assert str(tmp_path) not in str(added.skipped)


VOC_BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object>"


def voc(image: str, *boxes: str) -> bytes:
    size = "<size><width>20</width><height>20</height><depth>3</depth></size>"
    return f"<annotation><filename>{image}</filename>{size}{''.join(boxes)}</annotation>".encode()


def test_nobody_is_said_to_have_finished_what_the_labels_do_not_tell_of(folder: Path, tmp_path: Path) -> None:
    """A file of YOLO that is missing is no background, and an image with a wrong box is to be looked at."""
    yolo = archive(**{
        "data.yaml": b"names: [cat]\ntrain: images\nval: images\n", "images/a.png": png(1), "images/empty.png": png(2),
        "images/unlabelled.png": png(3), "labels/a.txt": b"0 .5 .5 .4 .4\n", "labels/empty.txt": b"",
    })  # fmt: skip
    labels = add_file(folder, "yolo.zip", upload(tmp_path, yolo)).labels
    assert labels is not None
    assert labels.boxes == {"yolo/images/a.png": [(6.0, 6.0, 14.0, 14.0, 0)], "yolo/images/empty.png": []}
    outside = VOC_BOX.format("cat", 100, 200)
    pets = archive(**{
        "a.png": png(1), "b.png": png(2), "a.xml": voc("a.png", VOC_BOX.format("cat", 1, 9), outside),
        "b.xml": voc("b.png", outside),
    })  # fmt: skip
    added = add_file(folder, "pets.zip", upload(tmp_path, pets))
    assert added.labels is not None
    cat = added.labels.class_names.index("cat")
    assert added.labels.boxes == {"pets/a.png": [(0.0, 0.0, 9.0, 9.0, cat)]}
    assert added.labels.unfinished == {"pets/a.png"}
    assert [name for name, _ in added.skipped] == ["a.xml", "b.xml"]
    assert "xmin=100" in added.skipped[0][1]


@pytest.mark.parametrize("leads", ["path: {}", "path: ../{}", "train: {}"])
def test_labels_of_an_archive_are_looked_for_in_it_only(folder: Path, tmp_path: Path, leads: str) -> None:
    """Whoever packs a data set of his own machine has its address in it, and it is there."""
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "private.png").write_bytes(png(9))
    where = str(tmp_path / "mine") if leads.startswith("path") else str(tmp_path / "mine" / "images")
    text = f"names: [cat]\n{leads.format(where)}\nval: images\n"
    data = {"images/a.png": png(1), "labels/a.txt": b"0 .5 .5 .4 .4\n", "data.yaml": text.encode()}
    added = add_file(folder, "yolo.zip", upload(tmp_path, archive(**data)))
    assert added.skipped == []
    assert added.labels is not None
    assert added.labels.boxes == {"yolo/images/a.png": [(6.0, 6.0, 14.0, 14.0, 0)]}
    names = {"images/a.png": png(1), "labels/a.txt": b"0 .5 .5 .4 .4\n"}
    (tmp_path / "names").write_text("secret\n")
    names["data.yaml"] = f"names: {tmp_path / 'names'}\ntrain: images\nval: images\n".encode()
    added = add_file(folder, "yolo.zip", upload(tmp_path, archive(**names)))
    assert "secret" not in str(added)


def test_names_in_an_archive(folder: Path, tmp_path: Path) -> None:
    """Programs that write UTF-8 and don't say so; names that become the same; a file where another has a folder."""
    names = ("ä.png", "b_.png")
    coco = {
        "images": [{"id": i, "file_name": name, "width": 20, "height": 20} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "bbox": [i, 1, 9, 9], "category_id": 1, "area": 81, "iscrowd": 0} for i in range(2)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    files = {"ae.png": png(1), "b_.png": png(2), "b?.png": png(3), "b_.png/c.png": png(4),
             "labels.json": json.dumps(coco).encode()}  # fmt: skip
    data = archive(**files).replace(b"ae.png", "ä.png".encode())
    added = add_file(folder, "a.zip", upload(tmp_path, data))
    assert added.names == ["a/ä.png", "a/b_.png", "a/b_ (2).png"]
    assert added.skipped == [("b_.png/c.png", "a file has the name of its folder")]
    assert added.labels is not None
    assert added.labels.boxes == {"a/ä.png": [(0.0, 1.0, 9.0, 10.0, 0)], "a/b_.png": [(1.0, 1.0, 10.0, 10.0, 0)]}


def sent(files: dict[str, bytes], images: dict[str, str]) -> bytes:
    head = {"files": [[name, len(data)] for name, data in files.items()], "images": images}
    return json.dumps(head).encode() + b"\n" + b"".join(files.values())


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_the_labels_of_a_folder(folder: Path, tmp_path: Path, format: str) -> None:
    """As those of an archive: the page sends the images, then the rest."""
    data = make_example(tmp_path / "made", 4, 2, 0)
    write_dataset(data, tmp_path / "set", format)
    places, files = {}, {}
    for path in sorted((tmp_path / "set").rglob("*")):
        name = path.relative_to(tmp_path).as_posix()
        if path.suffix == ".jpg":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(png())  # another image has the name already
            added = add_file(folder, name, path)
            assert added.place == name.replace(".jpg", " (2).jpg")
            assert add_file(folder, name, path).place == added.place
            places[name] = added.place
        elif path.is_file():
            files[name] = path.read_bytes()
    added = add_labels(folder, upload(tmp_path, sent(files, places)))
    assert added.skipped == []
    assert added.labels is not None
    assert set(added.labels.boxes) == set(places.values())
    count = sum(len(rows) for rows in added.labels.boxes.values())
    assert count == sum(len(record) for record in data) > 0
    assert {p.suffix for p in folder.rglob("*.*")} == {".jpg"}  # no annotation stays in the folder


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
@pytest.mark.parametrize("packed", [True, False], ids=["zip", "files"])
def test_labels_alone_are_those_of_images_that_are_here(
    folder: Path, tmp_path: Path, format: str, packed: bool
) -> None:
    """Somebody labelled the same photos elsewhere, and brings the labels only."""
    data = make_example(tmp_path / "made", 4, 2, 0)
    write_dataset(data, tmp_path / "set", format)
    known, files = [], {}
    for path in sorted((tmp_path / "set").rglob("*")):
        if path.suffix == ".jpg":
            (folder / "photos").mkdir(exist_ok=True)
            (folder / "photos" / path.name).write_bytes(path.read_bytes())
            known.append(f"photos/{path.name}")
        elif path.is_file():
            files[path.relative_to(tmp_path / "set").as_posix()] = path.read_bytes()
    if packed:
        added = add_file(folder, "labels.zip", upload(tmp_path, archive(**files)), known=known)
    else:
        added = add_labels(folder, upload(tmp_path, sent(files, {})), known=known)
    assert added.labels is not None
    assert added.skipped == []
    assert set(added.labels.boxes) == set(known)
    assert sum(map(len, added.labels.boxes.values())) == sum(len(record) for record in data) > 0
    other = ["photos/another.jpg"]
    (folder / other[0]).write_bytes(png(3))
    if packed:
        added = add_file(folder, "labels.zip", upload(tmp_path, archive(**files)), known=other)
    else:
        added = add_labels(folder, upload(tmp_path, sent(files, {})), known=other)
    assert added.labels is None or not added.labels.boxes
    assert added.skipped
    assert sorted(p.name for p in folder.iterdir()) == ["photos"]


def test_several_folders_with_labels(folder: Path, tmp_path: Path) -> None:
    """Each is a data set of its own, unless images and labels are in folders of their own."""
    for name in ("one/a.png", "two/a.png", "images/a.png"):
        add_file(folder, name, upload(tmp_path, png(len(name))))
    files = {
        "one/a.xml": voc("a.png", VOC_BOX.format("cat", 1, 9)),
        "two/data.yaml": b"names: [dog]\ntrain: .\nval: .\n", "two/a.txt": b"0 .5 .5 .4 .4\n",
    }  # fmt: skip
    added = add_labels(folder, upload(tmp_path, sent(files, {name: name for name in ("one/a.png", "two/a.png")})))
    assert added.skipped == []
    assert added.labels is not None
    found = {
        name: [(*row[:4], added.labels.class_names[int(row[4])]) for row in rows]
        for name, rows in added.labels.boxes.items()
    }
    assert found == {"one/a.png": [(0.0, 0.0, 9.0, 9.0, "cat")], "two/a.png": [(6.0, 6.0, 14.0, 14.0, "dog")]}
    yolo = {"labels/a.txt": b"0 .5 .5 .4 .4\n"}
    added = add_labels(folder, upload(tmp_path, sent(yolo, {"images/a.png": "images/a.png"})))
    assert added.labels is not None
    assert added.labels.boxes == {"images/a.png": [(6.0, 6.0, 14.0, 14.0, 0)]}
    assert "nothing names the classes" in added.skipped[0][1]


@pytest.mark.parametrize(
    "place", ["labels/{}/d.txt", "{}/labels/d.txt", "mine/{}/d.txt", "set/labels/{}/d.txt", "{}/d.txt"]
)
@pytest.mark.parametrize("packed", [True, False], ids=["zip", "files"])
def test_of_images_of_the_same_name_the_folder_decides(folder: Path, tmp_path: Path, place: str, packed: bool) -> None:
    known = ["one/d.png", "two/d.png", "one/e.png"]
    for i, name in enumerate(known):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(png(i))
    files = {place.format("one"): b"0 0.5 0.5 0.2 0.2\n", place.format("two"): b"1 0.5 0.5 0.4 0.4\n"}
    files |= {place.format("one").replace("d.txt", "e.txt"): b"1 0.5 0.5 0.6 0.6\n", "classes.txt": b"cat\ndog\n"}
    if packed:
        added = add_file(folder, "labels.zip", upload(tmp_path, archive(**files)), known=known)
    else:
        added = add_labels(folder, upload(tmp_path, sent(files, {})), known=known)
    assert added.labels is not None
    assert added.labels.class_names == ("cat", "dog")
    assert {name: [row[4] for row in rows] for name, rows in added.labels.boxes.items()} == {
        "one/d.png": [0], "two/d.png": [1], "one/e.png": [1]
    }  # fmt: skip
    width = {name: (rows[0][2] - rows[0][0]) / 20 for name, rows in added.labels.boxes.items()}
    assert width == pytest.approx({"one/d.png": 0.2, "two/d.png": 0.4, "one/e.png": 0.6})


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "files"])
def test_what_is_no_label_is_not_said_to_lack_images(folder: Path, tmp_path: Path, packed: bool) -> None:
    (folder / "a.png").write_bytes(png(1))
    for name, text in (("a.json", b'{"images": ['), ("README.txt", b"hello")):
        if packed:
            added = add_file(folder, "labels.zip", upload(tmp_path, archive(**{name: text})), known=["a.png"])
        else:
            added = add_labels(folder, upload(tmp_path, sent({name: text}, {})), known=["a.png"])
        assert added.skipped == [(name, "is no image, nor labels in a known format")]


def test_labels_that_were_sent_lead_nowhere_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    add_file(folder, "a.png", upload(tmp_path, png(1)))
    box = voc("secret.png", VOC_BOX.format("cat", 1, 9))
    for name, place in (("secret.png", "../secret.png"), ("../secret.png", "a.png")):
        with pytest.raises(ArgumentError):
            add_labels(folder, upload(tmp_path, sent({"secret.xml": box}, {name: place})))
    with pytest.raises(ArgumentError):
        add_labels(folder, upload(tmp_path, sent({"../b.xml": box}, {"a.png": "a.png"})))
    added = add_labels(folder, upload(tmp_path, sent({"notes.txt": b"hello"}, {"a.png": "a.png"})))
    assert added.skipped == [("notes.txt", "is no image, nor labels in a known format")]
    added = add_labels(folder, upload(tmp_path, sent({"a.xml": box}, {"a.png": "gone.png"})))
    assert added.skipped == [("a.xml", "none of its images came with it, and it names none of the images here")]
    for wrong in (
        b"",
        b"[]\n",
        b'{"files": [["a.json", -5]], "images": {}}\n',
        b'{"files": 3, "images": {}}\n',
        b"[" * 9999,
    ):
        with pytest.raises(ArgumentError):
            add_labels(folder, upload(tmp_path, wrong))
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.png", "secret.png", "upload"]


def test_a_password_and_too_many_boxes(folder: Path, tmp_path: Path) -> None:
    data = bytearray(archive(**{"a.png": png(1), "a.xml": voc("a.png", VOC_BOX.format("cat", 1, 9))}))
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the second file says that it is locked
        data[data.rindex(mark) + flag] |= 1
    added = add_file(folder, "locked.zip", upload(tmp_path, bytes(data)))
    assert added.names == ["locked/a.png"]
    assert added.skipped == [("locked.zip", "a.xml: is protected by a password; pack it without one")]
    box = VOC_BOX.format("cat", 1, 9)
    many = archive(
        **{"a.png": png(1), "b.png": png(2), "a.xml": voc("a.png", *[box] * 5001), "b.xml": voc("b.png", box)}
    )
    added = add_file(folder, "many.zip", upload(tmp_path, many))
    assert added.labels is not None
    assert set(added.labels.boxes) == {"many/b.png"}
    assert added.skipped == [("many/a.png", "has 5001 boxes, more than 5000; they were left out")]
