"""Every file name that the program derives or is given for output: no file of the user's is lost under it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sppnet import SPPDetector
from sppnet.cli.main import main
from sppnet.detection.exports import check_results_outside
from sppnet.errors import ArgumentError
from sppnet.storage.output_folder import LIST_NAME, OutputFolder
from tiny_model import save_tiny_model
from toy_data import write_toy_images, write_toy_voc

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("desk")
    write_toy_voc(home / "data", {"train": 6, "val": 2})
    write_toy_images(home / "folders")
    save_tiny_model(home / "m.safetensors")
    (home / "photos").mkdir()
    for source in sorted((home / "data" / "JPEGImages").iterdir())[:3]:
        shutil.copy(source, home / "photos")
    return home


@pytest.fixture
def home(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


DETECT = ["detect", "photos", "--model", "m.safetensors", "-q"]
# command, names that it derives, exit status
DERIVED = {
    "train": (
        ["train", "data", "-o", "my.safetensors", "--scales", "64", "--epochs", "1", "-q"],
        ["my-examples.jpg", "my.safetensors.cache/mine.txt", "my.safetensors.cache/ab/mine.safetensors"],
        0,
    ),
    "classify-train": (
        ["classify-train", "folders", "-o", "c.safetensors", "--method", "sgd", "--epochs", "1", "--scales", "32",
         "--levels", "1", "--hidden", "-q"],
        ["c-curve.png", "c.safetensors.cache/mine.txt", "c.safetensors.cache/images.safetensors"],
        0,
    ),
    "classifier's checkpoint": (
        ["classify-train", "folders", "-o", "c.safetensors", "--method", "sgd", "--epochs", "1", "--scales", "32",
         "--levels", "1", "--hidden", "-q"],
        ["c.safetensors.cache/training.safetensors"],
        2,
    ),
    "label-studio": ([*DETECT, "--results", "t.json", "--format", "label-studio"], ["t.config.xml"], 0),
    "journal": ([*DETECT, "--json", "f.json"], ["f.json.journal"], 2),
    "lock of a journal": ([*DETECT, "--json", "f.json"], [".f.json.journal.lock"], 2),
    "drawings": ([*DETECT, "-o", "out"], ["out/000000.jpg", "out/000001.JPG"], 0),
    "journal of drawings": ([*DETECT, "-o", "out"], ["out/sppnet.journal"], 2),
    "list of drawings": ([*DETECT, "-o", "out", "--on-error", "fail"], [f"out/{LIST_NAME}"], 2),
    "voc": ([*DETECT, "--results", "out", "--format", "voc"], ["out/000000.xml"], 2),
    "yolo": ([*DETECT, "--results", "out", "--format", "yolo"], ["out/labels/000000.txt"], 2),
    "yolo's yaml": ([*DETECT, "--results", "out", "--format", "yolo"], ["out/data.yaml"], 2),
    "failures": (
        ["eval", "data", "--model", "m.safetensors", "--failures", "out", "-q"],
        ["out/index.html", "out/missed.jpg"],
        2,
    ),
    "windows": (
        ["proposals", "photos", "-o", "out", "--draw", "-q"], ["out/000000.jpg.json", "out/000000.jpg.windows.jpg"], 0,
    ),
    "convert": (["data", "convert", "data", "-o", "out", "--to", "coco", "-q"], ["out/annotations.json"], 2),
    "example": (["data", "example", "-o", "out", "-q"], ["out/notes.txt"], 2),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DERIVED)
def test_a_file_of_a_derived_name_stays(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, taken, status = DERIVED[name]
    for place in taken:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text("mine")
    before = contents(home)
    assert main(command) == status, capsys.readouterr().err
    after = contents(home)
    assert {place: after.get(place) for place in before} == before
    if status == 2:
        assert f"{taken[0].partition('/')[0]}" in capsys.readouterr().err
    else:
        assert len(after) > len(before)


@pytest.mark.slow
def test_files_of_derived_names_are_ours_the_second_time(home: Path) -> None:
    """No -2, -3, ... for what sppnet itself wrote."""
    train = DERIVED["train"][0]
    for command in (train, DERIVED["label-studio"][0], DERIVED["windows"][0]):
        assert main(command) == 0
        names = set(contents(home))
        assert main(command) == 0
        assert set(contents(home)) == names


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        (["detect", "photos/000000.jpg", "--model", "m.safetensors", "--json", "photos/000000.jpg"], "--json"),
        (["detect", "photos", "--model", "m.safetensors", "--journal", "photos/000000.jpg"], "--journal"),
        (
            ["detect", "photos", "--model", "m.safetensors", "--results", "m.safetensors", "--format", "csv"],
            "--results",
        ),
        (["detect", "photos", "--model", "m.safetensors", "--json", "link.safetensors"], "--json"),
        (["eval", "data/a.csv", "--model", "m.safetensors", "--json", "data/../data/a.csv"], "--json"),
        (["train", "data", "-o", "photos/000000.jpg"], "--output"),
        (["data", "show", "data", "-o", "data/JPEGImages/000000.jpg"], "--output"),
        (["features", "photos", "--windows", "w.json", "-o", "w.json"], "--output"),
        (["data", "check", "data", "--json", "link.json"], "--json"),
        (["data", "check", "data", "--json", "data/Annotations/000000.xml"], "--json"),
        (["data", "check", "data", "--json", "data/ImageSets/Main/train.txt"], "--json"),
        (["eval", "data", "--model", "m.safetensors", "--json", "labels.json"], "--json"),
        (["train", "data", "-o", "labels.json"], "--output"),
        (["detect", "photos", "--model", "m.safetensors", "--results", "found.csv"], "--results"),
        (["detect", "photos", "--model", "m.safetensors", "--json", "boxes.txt"], "--json"),
        (
            ["detect", "photos", "--model", "m.safetensors", "--results", "tasks.json", "--format", "label-studio"],
            "--results",
        ),
        (["proposals", "photos", "-o", "data.yaml"], "--output"),
        (["detect", "photos", "--model", "m.safetensors", "--json", "clip.mp4"], "--json"),
        (["data", "check", "data", "--json", "m.safetensors"], "--json"),
        (["features", "photos", "--model", "m.safetensors", "-o", "n.safetensors"], "--output"),
        (["classify-train", "folders", "-o", "n.safetensors"], "--output"),
        (["train", "data", "-o", "foreign.safetensors"], "--output"),
        (["detect", "photos", "--model", "m.safetensors", "--json", "pack.zip"], "--json"),
        (["train", "data", "-o", "net.onnx"], "--output"),
    ],
)
def test_what_is_read_is_not_written_over(
    command: list[str], lost: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "data" / "a.csv").write_text("image,x0,y0,x1,y1,label\n")
    (home / "w.json").write_text("{}")
    (home / "link.safetensors").symlink_to("m.safetensors")
    (home / "link.json").symlink_to("photos/000000.jpg")
    for name in ("clip.mp4", "foreign.safetensors", "pack.zip", "net.onnx"):
        (home / name).write_bytes(b"mine")
    shutil.copy(home / "m.safetensors", home / "n.safetensors")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    images, categories = [{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "name": "cat"}]
    (home / "labels.json").write_text(
        json.dumps({"images": images, "annotations": [box], "categories": categories}), encoding="utf-8"
    )
    (home / "found.csv").write_text("image,x0,y0,x1,y1,label\na.jpg,1,2,3,4,cat\n")
    (home / "boxes.txt").write_text("a.jpg 1,2,3,4,0\n")
    (home / "tasks.json").write_text('[{"data": {"image": "a.jpg"}, "annotations": [{"result": [1]}]}]')
    (home / "data.yaml").write_text("train: images\nnames: [cat]\n")
    before = contents(home)
    assert main([*command, "-q"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sppnet: {lost} ")
    assert "name another file" in error
    assert contents(home) == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["json", "jsonl", "csv", "counts", "coco", "coco-results", "label-studio", "cvat"])
def test_what_was_found_may_be_replaced(format: str, home: Path) -> None:
    """Also where it looks like annotations of the same format."""
    name = {"csv": "f.csv", "counts": "f.csv", "cvat": "f.xml", "jsonl": "f.txt"}.get(format, "f.json")
    for threshold in ("0.01", "0.02"):
        command = [*DETECT, "--results", f"photos/{name}", "--format", format, "--threshold", threshold]
        assert main(command) == 0
    assert (home / "photos" / name).stat().st_size > 60


@pytest.mark.parametrize(
    "header", ["image,objects", "image,objects counted,notes", "image,objects found by hand,notes"]
)
def test_counts_of_ones_own_stay(header: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.csv").write_text(f"{header}\na.jpg,5\n")
    before = contents(home)
    assert main([*DETECT, "--results", "mine.csv", "--format", "counts"]) == 2
    assert "mine.csv: is there and holds something else than a table of counts" in capsys.readouterr().err
    assert contents(home) == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["voc", "yolo"])
def test_results_in_folders(format: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the images, and again; but not in a data set, where they would be taken for its annotations."""
    command = [*DETECT, "--format", format, "--threshold", "0.01", "--results"]
    for place in ("new", "new", "photos", "photos"):
        assert main([*command, place]) == 0, capsys.readouterr().err
    assert main(["data", "convert", "data", "-o", "yolo set", "--to", "yolo", "-q"]) == 0
    for place in ("data", "yolo set"):
        before = contents(home)
        capsys.readouterr()
        assert main([*command, place]) == 2
        assert "and results would be taken for its annotations; name another folder" in capsys.readouterr().err
        assert contents(home) == before


@pytest.mark.parametrize(
    "results",
    ["found --format voc", "more/found --format yolo", "found.csv", "f.json --format coco", "f.xml --format cvat"],
)
def test_results_are_not_written_among_labels(results: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder below, too: the data set would have them as labels, beside its own."""
    before = contents(home)
    for folder in ("data", "./data/../data"):
        command = f"detect {folder} --model m.safetensors -q --results data/{results}"
        assert main(command.split()) == 2
        error = capsys.readouterr().err
        assert "lies in" in error
        assert "holds annotations (voc)" in error
        assert "outside" in error
    assert contents(home) == before


def test_labels_of_yolo_are_labels_and_our_own_results_are_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = home / "photos"
    check_results_outside(photos / "found", "voc", [photos])
    (photos / "f.json").write_text('{"images": [], "annotations": [], "categories": []}')
    for name in ("labels/000000.txt", "data.yaml"):
        OutputFolder(photos / "found").write(name, b"0 0.5 0.5 0.1 0.1\n" if "txt" in name else b"names: [cat]\n")
    check_results_outside(photos / "found", "yolo", [photos])
    check_results_outside(photos / "found.json", "json", [home / "data", photos])  # no data set is in this format
    (photos / "000000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ArgumentError, match=r"holds annotations \(.*\), .* name a file outside"):
        check_results_outside(photos / "found.csv", "csv", [photos])
    check_results_outside(home / "found.csv", "csv", [photos])


def test_the_labels_of_a_folder_called_images_lie_beside_it(home: Path) -> None:
    data = home / "yolo"
    for name, content in (("images/train/a.jpg", b"\xff\xd8"), ("labels/train/a.txt", b"0 0.5 0.5 0.1 0.1\n")):
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(content)
    for folder in ("images", "images/train"):
        with pytest.raises(ArgumentError, match="which holds annotations"):
            check_results_outside(data / "found", "yolo", [data / folder])
        check_results_outside(data / "found.csv", "csv", [data / folder])  # one table is seen, and told from labels
        check_results_outside(home / "found", "yolo", [data / folder])


def test_drawn_images_are_no_input_of_later_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DETECT, "-o", "photos/found", "--threshold", "0.01"]) == 0
    (home / "photos" / "found" / "mine.jpg").write_bytes(next((home / "photos").glob("*.jpg")).read_bytes())
    assert main([*DETECT, "--json", "found.json"]) == 0
    names = [item["image"] for item in json.loads((home / "found.json").read_text())["images"]]
    assert names == ["000000.jpg", "000001.jpg", "000002.jpg", "found/mine.jpg"]
    (home / "photos" / "found" / "mine.jpg").unlink()
    capsys.readouterr()
    command = ["detect", "photos/found", "--model", "m.safetensors", "-q"]
    assert main([*command, "--json", "again.json"]) == 2
    assert "those that sppnet drew in photos/found don't count" in capsys.readouterr().err
    assert main(["detect", "photos/found/000000.jpg", *command[2:]]) == 0  # it is named itself


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        ("rename-class cat lion --model m.safetensors -o", "real.docx", "PK mine"),
        ("remove-class cat --model m.safetensors -o", "notes", "mine"),
        ("detect photos --model m.safetensors --json", "l.txt", "0 0.5 0.5 0.1 0.1\n"),
        ("detect photos --model m.safetensors --json", "classes.txt", "cat\ncup\n"),
        ("detect photos --model m.safetensors --json", "letter.rtf", "{\\rtf1 mine}"),
        ("detect photos --model m.safetensors --results", "patients.csv", "name,age\nmine,3\n"),
        ("detect photos --model m.safetensors --results", "f.jsonl", "mine"),
        ("detect photos --model m.safetensors --format cvat --results", "f.txt", "mine"),
        ("eval data --model m.safetensors --json", "classes.txt", "cat\n"),
        ("proposals photos -o", "w.json", "mine"),
    ],
)
def test_files_of_others_are_not_replaced(
    command: str, name: str, content: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / name).write_text(content)
    before = contents(home)
    assert main([*command.split(), name, "-q"]) == 2
    error = capsys.readouterr().err
    assert f" {name}: is there and holds something else than " in error
    assert "name another file" in error
    assert contents(home) == before


def test_an_empty_file_may_be_replaced(home: Path) -> None:
    (home / "found.txt").touch()
    assert main(["detect", "photos/000000.jpg", "--model", "m.safetensors", "-q", "--json", "found.txt"]) == 0
    assert json.loads((home / "found.txt").read_text())["images"]


def test_home_in_names_of_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave ``~`` in ``--json=~/f.json``."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert main(["detect", "~/photos/000000.jpg", "--model=~/m.safetensors", "-q", "--json=~/new/f.json"]) == 0
    assert (home / "new" / "f.json").is_file()
    assert main(["rename-class", "cat", "~/cat", "--model=~/m.safetensors", "-q", "-o", "~/n.safetensors"]) == 0
    assert SPPDetector.load(home / "n.safetensors").class_names_[0] == "~/cat"
    assert list((home / "elsewhere").iterdir()) == []


def test_windows_are_not_drawn_among_the_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(home)
    assert main(["proposals", "photos", "-o", "photos", "--draw", "-q"]) == 2
    assert "photos: holds images of which windows are drawn; name another folder" in capsys.readouterr().err
    assert contents(home) == before


CIRCLES = [
    "data check {}", "data convert {} -o new --to coco", "data convert data -o {} --to coco", "train data -o {}",
    "train {} -o t.safetensors", "detect {}", "detect photos -o {}", "detect photos --json {}",
    "detect photos --journal {}", "detect photos --results {} --format voc", "detect photos --model {}",
    "eval data --failures {}", "proposals {}", "proposals photos -o {}", "features photos -o {}",
    "classify-train {} -o c.safetensors", "cache clear {}", "data example -o {}", "data frames {} -o new",
    "data frames clip.mp4 -o {}",
]  # fmt: skip


@pytest.mark.parametrize("command", CIRCLES)
def test_links_in_a_circle(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    words = command.format("a").split()
    more = ["--model", "m.safetensors"] if words[0] in ("detect", "eval", "features") and "--model" not in words else []
    assert main([*words, *more, "-q"]) in (1, 2)
    error = capsys.readouterr().err
    assert "unexpected" not in error
    assert "did you mean 'a'" not in error
    assert (home / "a").is_symlink()


def test_failures_are_not_drawn_among_the_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(home)
    assert main(["eval", "data", "--model", "m.safetensors", "--failures", "data/JPEGImages", "-q"]) == 2
    assert "data/JPEGImages: holds images of the data set; name another folder" in capsys.readouterr().err
    assert contents(home) == before


def test_a_model_may_be_changed_in_place(home: Path) -> None:
    before = (home / "m.safetensors").read_bytes()
    assert main(["rename-class", "cat", "lion", "--model", "m.safetensors", "-o", "m.safetensors", "-q"]) == 0
    assert (home / "m.safetensors").read_bytes() != before


# command, option that names the output, extension. What is written must be what is written without a link.
NAMED = {
    "train": (DERIVED["train"][0][:2] + DERIVED["train"][0][4:], "-o", ".safetensors"),
    "classify-train": (["classify-train", "folders", "--method", "svm", "--scales", "32", "-q"], "-o", ".safetensors"),
    "rename-class": (["rename-class", "cat", "lion", "--model", "m.safetensors"], "-o", ".safetensors"),
    "remove-class": (["remove-class", "cat", "--model", "m.safetensors"], "-o", ".safetensors"),
    "detect --json": (DETECT, "--json", ".json"),
    "detect --results": ([*DETECT, "--format", "csv"], "--results", ".csv"),
    "eval --json": (["eval", "data", "--model", "m.safetensors", "-q"], "--json", ".json"),
    "eval --plot": (["eval", "data", "--model", "m.safetensors", "-q"], "--plot", ".svg"),
    "features": (["features", "photos", "--model", "m.safetensors", "-q"], "-o", ".safetensors"),
    "proposals": (["proposals", "photos", "-q"], "-o", ".npz"),
    "model --json": (["model", "info", "--model", "m.safetensors"], "--json", ".json"),
    "data check": (["data", "check", "data", "-q"], "--json", ".json"),
    "data show": (["data", "show", "data", "-q"], "-o", ".png"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_an_output_that_is_a_link_stays_one(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, option, extension = NAMED[name]
    (home / "disk").mkdir()
    target, link = home / "disk" / f"real{extension}", home / f"link{extension}"
    for there in (False, True):
        if there:
            # only what looks like our own is replaced
            old = {".json": b"{}", ".csv": b"image,x0,y0,x1,y1,label,confidence\n", ".npz": b"PK\x03\x04"}
            if extension != ".safetensors":
                target.write_bytes(old.get(extension, b"old"))
            target.chmod(0o640)
        elif not link.is_symlink():
            link.symlink_to(target.relative_to(home))
        assert main([*command, option, link.name]) == 0, capsys.readouterr().err
        assert link.is_symlink()
        assert target.stat().st_size > 100
        assert [p.name for p in (home / "disk").iterdir()] == [target.name]
    assert target.stat().st_mode & 0o777 == 0o640
    target.chmod(0o444)
    before = contents(home)
    capsys.readouterr()
    assert main([*command, option, link.name]) == 2
    printed = capsys.readouterr()
    assert f"{link.name}: is write-protected; name another file" in printed.err
    assert not printed.out  # found before any work was done
    assert contents(home) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", DERIVED)
def test_a_link_of_a_derived_name_leads_nothing_elsewhere(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, taken, _ = DERIVED[name]
    (home / "mine").write_text("mine")
    for place in taken:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).symlink_to(home / "mine")
    assert main(command) in (0, 2), capsys.readouterr().err
    assert (home / "mine").read_text() == "mine"
    assert [(home / place).is_symlink() for place in taken] == [True] * len(taken)


@pytest.mark.parametrize(
    "options", [["--json", "x", "--results", "x", "--format", "coco"], ["--json", "x", "--journal", "./x"]]
)
def test_two_outputs_of_one_name_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main([*DETECT, *options]) == 2
    assert "is --json, too; name another file" in capsys.readouterr().err
    assert not (home / "x").exists()


def test_one_name_that_is_not_utf8_costs_the_others_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next((home / "photos").iterdir())
    try:
        shutil.copy(source, os.fsdecode(os.fsencode(home / "photos") + b"/caf\xe9.jpg"))
    except OSError:
        pytest.skip("this file system has no such names")
    assert main([*DETECT, "--json", "found.json"]) == 1
    document = json.loads((home / "found.json").read_text())
    assert len(document["images"]) == 3
    assert [item["image"] for item in document["failed"]] == [r"caf\udce9.jpg"]
    assert main(["features", "photos", "--model", "m.safetensors", "-o", "v.safetensors", "-q"]) == 1
    assert (home / "v.safetensors").is_file()
    assert r"caf\udce9.jpg" in capsys.readouterr().err
