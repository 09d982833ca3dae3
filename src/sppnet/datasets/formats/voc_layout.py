"""Where the annotations of a VOC data set are, and which images its lists put into each split."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sppnet.datasets.parsing import read_head, read_text, without_suffix
from sppnet.datasets.splits import SPLIT_NAMES, split_of_folders
from sppnet.errors import DatasetError, did_you_mean
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import files_in, walk_files

__all__ = ["VocLayout", "find_layout", "has_annotations", "has_files", "is_annotation", "read_list"]

# Lists of images outside ImageSets, as the Oxford pets and many others have them
_LISTS = ("trainval", *SPLIT_NAMES)


@dataclass(frozen=True)
class VocLayout:
    """Where things are.

    Attributes:
        home: the folder of the data set.
        annotations: the folder of its annotations.
        lists: files that list the images of a split, by its name.
    """

    home: Path
    annotations: Path
    lists: dict[str, Path]

    def files(self) -> dict[str, Path]:
        """All annotations by their path below ``annotations`` without extension; by their stem if all stems differ."""
        found = [file for file in walk_files(self.annotations) if file.suffix.lower() == ".xml"]
        if self.annotations == self.home:  # there may be XML files of anything
            found = [
                file for file in found if not is_foreign(file) and (file.parent == self.home or is_annotation(file))
            ]
        below = [without_suffix(file.relative_to(self.annotations).as_posix()) for file in found]
        stems = [PurePosixPath(name).name for name in below]
        shorter = [re.sub(r"(^|/)annotations?/", r"\1", name, flags=re.IGNORECASE) for name in below]
        names = next(tried for tried in (stems, shorter, below) if len(set(tried)) == len(tried))
        return dict(sorted(zip(names, found, strict=True)))


def has_annotations(folder: Path, limit: int = 20) -> bool:
    """Whether XML files in or below ``folder`` look like annotations of VOC; at most ``limit`` are opened."""
    for file in walk_files(folder):
        if file.suffix.lower() == ".xml":
            if is_annotation(file):
                return True
            limit -= 1
            if not limit:
                break
    return False


def is_annotation(file: Path) -> bool:
    """Whether the beginning of a file looks like an annotation of VOC."""
    return re.search(r"<annotation[\s>]", read_head(file, 4000)) is not None


def is_foreign(file: Path) -> bool:
    """Whether an XML file is of something else: its first element isn't ``<annotation>``."""
    first = re.search(r"<([A-Za-z_][\w.:-]*)", read_head(file, 4000))
    return first is not None and first[1] != "annotation"


def has_files(folder: Path, suffix: str) -> bool:
    """Whether there is a file with this extension in or below a folder."""
    return any(file.suffix.lower() == suffix for file in walk_files(folder))


def find_layout(root: Path) -> VocLayout:
    """Find ``root`` or the one folder up to two levels below it that holds ``Annotations``; else XML files anywhere.

    Raises:
        DatasetError: there is none, or there are several.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; name the one that holds Annotations and ImageSets")
    for pattern in ("Annotations", "*/Annotations", "*/*/Annotations", "annotations", "*/annotations"):
        found = sorted(path.parent for path in root.glob(pattern) if path.is_dir())
        if pattern.endswith("annotations"):  # COCO has such a folder too, of JSON files
            found = [home for home in found if has_files(home / "annotations", ".xml")]
        if len(found) == 1:
            home = found[0]
            annotations = home / pattern.rpartition("/")[2]
            return VocLayout(home, annotations, _find_lists(home, annotations))
        if found and not all(split_of_folders([home.name]) for home in found):
            raise DatasetError(f"{root}: holds several data sets ({', '.join(map(str, found))}); name one of them")
    if files_in(root, ".xml") or has_annotations(root):
        return VocLayout(root, root, _find_lists(root, root))
    raise DatasetError(
        f"{root}: neither it nor a folder up to two levels below holds Annotations; expected the VOC layout "
        "(Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt)"
    )


def _find_lists(home: Path, annotations: Path) -> dict[str, Path]:
    """The lists of images by the name of the split."""
    for folder in (home / "ImageSets" / "Main", home / "ImageSets"):
        found = files_in(folder, ".txt")
        if found or (folder.name == "Main" and folder.is_dir()):
            return {file.stem: file for file in found}
    for folder in (annotations, home):
        found = [file for file in files_in(folder, ".txt") if file.stem.removesuffix("_list").lower() in _LISTS]
        if found:
            return {file.stem.removesuffix("_list").lower(): file for file in found}
    return {}


def read_list(layout: VocLayout, split: str, stems: set[str]) -> list[str]:
    """Read the names of the images of a split.

    Args:
        layout: of the data set.
        split: name of a list; ``all`` means every annotation, unless there is a list of that name.
        stems: names of all annotations.

    Raises:
        DatasetError: there is no such list, it is empty, or it names an image twice.
    """
    if split not in layout.lists:
        if split == "all":
            return sorted(stems)
        file = layout.home / "ImageSets" / "Main" / f"{split}.txt"
        raise DatasetError(
            f"{file}: no such list; {did_you_mean(split, layout.lists)}available: "
            f"{', '.join([*sorted(layout.lists), 'all'])}"
        )
    file = layout.lists[split]
    lines = [line for line in map(str.strip, read_text(file, "one image's name a line").splitlines()) if line]
    ids = [_listed(line, stems) for line in lines if not (line.startswith("#") and line not in stems)]
    if not ids:
        raise DatasetError(f"{file}: the list is empty; expected one image's name a line")
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise DatasetError(f"{file}: lists {image_id!r} {count} times; remove the repetition")
    return ids


def _listed(line: str, stems: set[str]) -> str:
    """The annotation that a line means. A name may hold a space, end in an extension, and have columns behind it."""
    first = line.split()[0]
    for name in (line, line.rsplit(None, 1)[0], first):
        name = name.replace("\\", "/")
        suffix = PurePosixPath(name).suffix.lower()
        short_name = without_suffix(name) if suffix in IMAGE_EXTENSIONS or suffix == ".xml" else name
        for candidate in (name, short_name, PurePosixPath(short_name).name):
            if candidate in stems:
                return candidate
    return line.rsplit(None, 1)[0]
