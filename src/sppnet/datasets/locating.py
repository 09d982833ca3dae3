"""Finding the image that an annotation is about, however its name is written.

A name is tried as it stands, then with Windows separators, URL escapes, other case, other Unicode form, and other
extension. A relative name keeps its folders: ``camB/001.jpg`` is never found as ``camA/001.jpg``. Of an absolute name,
or one of another machine, the last parts count: as many as fit.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from sppnet.datasets.homes import Homes
from sppnet.datasets.spelling import (
    DRIVE,
    Spelling,
    absolute_path,
    closest,
    common_tail,
    folder_keys,
    is_sane,
    last_part,
    name_key,
    nearest_case,
    plain_parts,
    shared_folders,
    spellings,
    stem_key,
)
from sppnet.datasets.splits import plain_split, split_of_folders
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import walk_files

__all__ = ["IMAGE_FOLDERS", "ImageIndex", "Location", "folders_near", "home_of"]

IMAGE_FOLDERS = ("images", "JPEGImages", "Images", "img", "imgs", "image")
"""Names of folders in which images are looked for first."""

# Folders of annotations: the data set of a file in one of them is the folder above
_ANNOTATION_FOLDERS = frozenset(
    (
        *("annotation", "annotations", "annots", "annot", "ann", "anns", "label", "labels"),
        *("xml", "xmls", "json", "jsons", "csv", "meta"),
    )
)
_MAX_FILES = 2_000_000
_REMEMBERED = 1024  # lists of folders: annotations of one folder look into the same ones


@dataclass(frozen=True)
class Location:
    """Where the image of a name is.

    Attributes:
        path: the image; where there is none, where it was expected.
        found: whether there is one.
        outside: it lies outside the data set.
        missing: why there is none, where more is known than that.
        guessed: it lies where nothing says that images are; only its name fits.
    """

    path: Path
    found: bool = True
    outside: bool = False
    missing: str = ""
    guessed: bool = False


@dataclass(frozen=True)
class _Guess:
    """An image that may be the one of a name.

    Attributes:
        path: of the image.
        rank: how many of the last parts of the name fit.
        parts: of the name.
        request: which name it is.
        near: the folder of its annotation.
        anywhere: it lies where nothing says that images are.
    """

    path: Path
    rank: int
    parts: tuple[str, ...]
    request: int = -1
    near: Path = Path()
    anywhere: bool = False


def home_of(root: Path) -> Path:
    """Return the folder of a data set that is named by ``root``, a folder or a file in it."""
    if root.is_dir():
        return root
    folder = root.parent
    if folder.absolute().name.lower() in _ANNOTATION_FOLDERS:
        return folder.parent if folder.name not in ("", "..") else folder.absolute().parent
    return folder


@dataclass(frozen=True)
class _Place:
    """A folder that is looked into: its path, and the key of it with a separator behind it."""

    path: str
    key: str


@lru_cache(_REMEMBERED)
def folders_near(folder: Path, home: Path, split: str = "") -> tuple[Path, ...]:
    """List where the images of an annotation in ``folder`` may be, the likeliest first.

    Beside it; in ``images`` and its like beside any folder above it, with the folders below that, as in
    ``labels/train`` and ``images/train``; and the same with ``split`` added.
    """
    found = [folder]
    below = folder.relative_to(home).parts if folder.is_relative_to(home) else ()
    for depth in range(len(below), -1, -1):
        base = home.joinpath(*below[:depth])
        rest = below[depth + 1 :]
        for name in ("", *IMAGE_FOLDERS):
            place = base / name if name else base
            if split:
                found += [place.joinpath(*rest, split), place / split]
            found += [place.joinpath(*rest), place]
    return tuple(dict.fromkeys(found))


class ImageIndex:
    """The images of a data set, found by the names that annotations give them.

    Args:
        home: the folder of the data set.
        images: a further folder with images, which is looked into first.
    """

    def __init__(self, home: Path, images: Path | None = None) -> None:
        self.home = absolute_path(home)
        self.images = absolute_path(images) if images is not None else None
        self.unreadable: list[Path] = []
        self._given = (home, images)
        # where annotations in a folder surely have images: one of another folder that is only called alike isn't theirs
        self._own: dict[Path, set[Path]] = defaultdict(set)
        self._meant: set[Path] = set()
        self._places: dict[tuple[Path, ...], list[_Place]] = {}
        self._allowed = [p for base in (self.home, self.images) if base is not None
                         for p in (base, Path(os.path.realpath(base)))]  # fmt: skip

    @cached_property
    def files(self) -> list[Path]:
        """Every image in and below the data set's folders."""
        found: dict[Path, None] = {}
        for base in (self.images, self.home):
            if base is None:
                continue
            for count, file in enumerate(walk_files(base, unreadable=self.unreadable)):
                if count > _MAX_FILES:
                    break
                if file.suffix.lower() in IMAGE_EXTENSIONS:
                    found[file] = None
        return list(found)

    @cached_property
    def _tables(self) -> tuple[dict[str, list[Path]], ...]:
        """Images by the key of: path, path without extension, name, name without extension."""
        tables: tuple[dict[str, list[Path]], ...] = tuple(defaultdict(list) for _ in range(4))
        for file in self.files:
            whole = name_key(str(file))
            stem = name_key(str(file.with_suffix("")))
            for table, key in zip(tables, (whole, stem, last_part(whole), last_part(stem)), strict=True):
                table[key].append(file)
        return tables

    def locate(self, requests: Sequence[tuple[str, Sequence[Path]]], *, taken: Collection[Path] = ()) -> list[Location]:
        """Find the image of each name.

        Args:
            requests: a name, and the folders that it may be relative to, the likeliest first. Names of one
                file belong together: an image that one of them means exactly isn't guessed for another.
            taken: images that other names mean; they aren't guessed either.

        Returns:
            A location for each, in the same order.
        """
        found: list[Location | None] = []
        lost: dict[Path, set[str]] = defaultdict(set)
        for name, folders in requests:
            place = self._exact(name, self.places(folders))
            found.append(place)
            if not folders or not self._learn_home(name, folders, place):
                lost[folders[0] if folders else self.home].add(stem_key(name))
        known = {place.path for place in found if place is not None and not place.outside}
        homes = {folder: Homes(lambda: self.series, own) for folder, own in self._own.items()}
        shared = shared_folders([name for name, _ in requests])
        guesses: list[_Guess] = []
        for i, (name, folders) in enumerate(requests):
            exact = found[i]
            if exact is not None and not exact.outside:
                continue
            guess, missing = self._search(name, self.places(folders), shared)
            if exact is not None and (guess is None or guess.rank < 2):
                continue  # a file outside fits better than the last part of a name
            near = folders[0] if folders else self.home
            if guess is None:
                found[i] = Location(self._expected(name, folders), False, missing=missing)
            elif guess.rank == 1 and (
                (near in homes and homes[near].is_anothers(guess.path, lost[near]))
                or (guess.anywhere and self._of_another_split(near, guess.path))
            ):
                found[i] = self._of_another(name, folders, guess.path)
            else:
                found[i] = Location(guess.path, guessed=guess.anywhere and guess.rank == 1)
                guesses.append(replace(guess, request=i, near=near))
        self._drop_strange(guesses, found, requests)
        left = [guess for guess in guesses if _is_found(found[guess.request])]
        self._settle(left, {*taken, *known, *self._meant}, found, requests)
        return [place if place is not None else Location(self.home, False) for place in found]

    def note(self, requests: Sequence[tuple[str, Sequence[Path]]]) -> None:
        """Remember the images that these names of some file mean exactly: they aren't guessed for names of others."""
        for name, folders in requests:
            place = self._exact(name, self.places(folders))
            if place is not None and not place.outside:
                self._meant.add(place.path)

    def _of_another_split(self, near: Path, path: Path) -> bool:
        """Whether the folders of an annotation and an image are called like different splits."""
        one, two = (_split_below(folder, self.home) for folder in (near, path.parent))
        return bool(one and two and one != two)

    def _learn_home(self, name: str, folders: Sequence[Path], place: Location | None) -> bool:
        """Remember the folder of an image that is surely the one meant by annotations in the first of ``folders``.

        Returns:
            Whether there is such an image.
        """
        if place is not None:
            if not place.outside:
                self._own[folders[0]].add(place.path.parent)
        elif is_sane(name):
            spelling = next(spellings(name))
            sure = self._by_folder(spelling, self.places(folders), 0)
            if len(sure) == 1:
                self._own[folders[0]].add(self._shown(sure[0]).parent)
                return True
        return place is not None

    @cached_property
    def series(self) -> dict[Path, dict[str, Path]]:
        """Of each folder with images: these by the key of their names without extension."""
        found: dict[Path, dict[str, Path]] = defaultdict(dict)
        for file in self.files:
            found[self._shown(file).parent].setdefault(name_key(file.stem), file)
        return dict(found)

    def _of_another(self, name: str, folders: Sequence[Path], path: Path) -> Location:
        why = f"{path} is called like it, but the other images of this annotation lie elsewhere"
        return Location(self._expected(name, folders), False, missing=why)

    def _drop_strange(
        self, guesses: list[_Guess], found: list[Location | None], requests: Sequence[tuple[str, Sequence[Path]]]
    ) -> None:
        """Of names that fit in part: those that lie elsewhere than their neighbours, which fit better, say."""
        best: dict[Path, int] = defaultdict(int)
        partly = [guess for guess in guesses if guess.rank < len(guess.parts)]
        for guess in partly:
            best[guess.near] = max(best[guess.near], guess.rank)
        homes: dict[Path, set[Path]] = defaultdict(set)
        moved: dict[Path, dict[tuple[str, ...], set[str]]] = defaultdict(lambda: defaultdict(set))
        for guess in partly:
            if guess.rank == best[guess.near]:
                homes[guess.near].add(guess.path.parent)
                # where the folders of the other machine are here, as far as both aren't called alike
                base = name_key(str(guess.path.parents[guess.rank - 1]))
                moved[guess.near][guess.parts[: -guess.rank]].add(base)
        known = {near: Homes(lambda: self.series, own) for near, own in homes.items()}
        lost: dict[Path, set[str]] = defaultdict(set)
        for guess in partly:
            if guess.rank < best[guess.near]:
                lost[guess.near].add(name_key(guess.path.stem))
        for guess in partly:
            near, parts = guess.near, guess.parts
            if guess.rank == best[near] or not known[near].is_anothers(guess.path, lost[near]):
                continue
            here = name_key(str(guess.path.parent))
            if not any(
                name_key(str(Path(base).joinpath(*parts[k:-1]))) == here
                for k in range(len(parts))
                for base in moved[near].get(parts[:k], ())
            ):
                found[guess.request] = self._of_another(*requests[guess.request], guess.path)

    def _settle(
        self,
        guesses: list[_Guess],
        taken: Collection[Path],
        found: list[Location | None],
        requests: Sequence[tuple[str, Sequence[Path]]],
    ) -> None:
        """Of several names that fit one image only in part, the best keeps it; of equally good ones none does."""
        by_image: dict[Path, list[_Guess]] = defaultdict(list)
        for guess in guesses:
            by_image[guess.path].append(guess)
        own = {near: frozenset(self._own.get(near, ())) for near in {guess.near for guess in guesses}}
        for path, rivals in by_image.items():
            if len(rivals) == 1 and path not in taken:
                continue
            best = max(guess.rank for guess in rivals)
            places = list({guess.near / "-": None for guess in rivals if guess.rank == best})
            nearest = set(closest(places, path.parent, words=True))
            kept = [guess for guess in rivals if guess.rank == best and guess.near / "-" in nearest]
            winners = {guess.request for guess in kept}
            # two annotations of one image may lie in folders of their own; where these have other images, they mean two
            meant = {(requests[guess.request][0], own[guess.near]) for guess in kept}
            for guess in rivals:
                if path in taken or len(meant) > 1 or guess.request not in winners:
                    why = f"only {path} is called like it, and that is the image of another name"
                    found[guess.request] = Location(self._expected(*requests[guess.request]), False, missing=why)

    def places(self, folders: Sequence[Path]) -> list[_Place]:
        """Give the folders that are looked into for names that may be relative to ``folders``."""
        folders = tuple(folders)
        if folders not in self._places:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            paths = map(str, self._find_places(folders))
            self._places[folders] = [_Place(path, name_key(path.rstrip(os.sep) + os.sep)) for path in paths]
        return self._places[folders]

    def _find_places(self, folders: Sequence[Path]) -> list[Path]:
        absolute = [absolute_path(folder) for folder in folders]
        if self.images is None:
            return list(dict.fromkeys(absolute))
        below: tuple[str, ...] = ()
        if absolute and absolute[0].is_relative_to(self.home):
            below = absolute[0].relative_to(self.home).parts  # the images may lie as the annotations do
        mirrored = [self.images.joinpath(*below[k:]) for k in range(len(below) + 1)]
        return list(dict.fromkeys([*mirrored, *absolute]))

    def has(self, name: str, folders: Sequence[Path]) -> bool:
        """Whether there is an image of a name that begins with #, or it is a comment."""
        places = self.places(folders)
        exact = self._exact(name, places)
        if exact is not None and not exact.outside:
            return True
        if is_sane(name) and self._by_folder(next(spellings(name)), places, 0):
            return True
        plain = name.lstrip("# ")
        if plain and self.locate([(plain, folders)])[0].found:
            return False  # a row that was taken out
        return self.locate([(name, folders)])[0].found

    def inside(self, path: Path) -> bool:
        """Whether a path lies in the data set's folders, by its name."""
        absolute = absolute_path(path)
        return any(absolute.is_relative_to(base) for base in self._allowed)

    def _shown(self, path: Path) -> Path:
        """Return ``path`` as the caller wrote the data set's folder: relative where that was relative."""
        for base, given in zip((self.home, self.images), self._given, strict=True):
            if base is not None and given is not None and path.is_relative_to(base):
                return given / path.relative_to(base)
        return path

    def _expected(self, name: str, folders: Sequence[Path]) -> Path:
        # with its last folders, so that two that are missing aren't taken for one
        parts = plain_parts(DRIVE.sub("/", name, count=1).replace("\\", "/").replace("\0", "?"))[-4:]
        return (folders[0] if folders else self.home).joinpath(*(part[-200:] for part in parts or ("?",)))

    def _exact(self, name: str, places: Sequence[_Place]) -> Location | None:
        """The file of that very name; one outside the data set only where there is none inside."""
        if not is_sane(name):
            return None
        outside: Location | None = None
        texts = list(dict.fromkeys([name, name.replace("\\", "/")]))
        for text in texts:
            for place in places[:1] if text.startswith("/") else places:
                # no path objects, of which most would be of no file; a name too long, or a folder that may not be
                # entered, is no file either
                joined = os.path.normpath(os.path.join(place.path, text))  # noqa: PTH118
                if not os.path.isfile(joined):  # noqa: PTH113
                    continue
                path = Path(joined)
                if self.inside(path):
                    return Location(self._shown(path))
                outside = outside or Location(path, outside=True)
        return outside

    def _search(self, name: str, places: Sequence[_Place], shared: int) -> tuple[_Guess | None, str]:
        """The image that fits ``name`` best; or why there is none, where more is known than that."""
        missing = ""
        if is_sane(name):
            for spelling in spellings(name):
                found = self._by_folder(spelling, places, shared)
                rank, anywhere = len(spelling.parts), not found
                if not found:
                    found, rank = self._by_tail(spelling, Path(places[0].path) if places else None)
                if len(found) == 1:
                    return _Guess(self._shown(found[0]), rank, spelling.parts, anywhere=anywhere), ""
                if found and not missing:
                    missing = f"several images are called like it: {found[0]} and {found[1]}"
        return None, missing

    def _by_folder(self, spelling: Spelling, places: Sequence[_Place], shared: int) -> list[Path]:
        """Images in one of ``places``, with all parts of the name; or without leading folders that all names share."""
        whole, stem, _, _ = self._tables
        variants = [spelling.parts]
        if not spelling.foreign:
            variants += [spelling.parts[k:] for k in range(1, min(shared, len(spelling.parts) - 1) + 1)]
        for table in (whole, stem):
            for parts in variants:
                if parts[0] in ("/", ".", ".."):  # nothing but such a name has them
                    continue
                last = parts[-1]
                if table is stem and PurePosixPath(last).suffix.lower() in IMAGE_EXTENSIONS:
                    last = PurePosixPath(last).stem
                key = name_key(os.sep.join((*parts[:-1], last)))  # noqa: PTH118
                for place in places:
                    if found := nearest_case(table.get(place.key + key, []), parts[-1]):
                        return found
        return []

    def _by_tail(self, spelling: Spelling, near: Path | None) -> tuple[list[Path], int]:
        """Images anywhere in the data set whose last parts are those of the name, and how many are."""
        _, _, names, stems = self._tables
        parts = [name_key(part) for part in spelling.parts]
        suffix = PurePosixPath(parts[-1]).suffix
        bare = parts[-1].removesuffix(suffix) if suffix in IMAGE_EXTENSIONS else parts[-1]
        for table, last in ((names, parts[-1]), (stems, bare)):
            ranked = [(common_tail(parts[:-1], folder_keys(path)) + 1, path) for path in table.get(last, [])]
            if not spelling.foreign:
                # The parts above the data set's folder may be in the name, too
                ranked = [(rank, path) for rank, path in ranked if rank == len(parts)]
            if ranked:
                best = max(rank for rank, _ in ranked)
                found = [path for rank, path in ranked if rank == best]
                if len(found) > 1 and near is not None:
                    found = closest(found, near)
                return nearest_case(found, spelling.parts[-1]), best
        return [], 0


def _is_found(place: Location | None) -> bool:
    return place is not None and place.found


def _split_below(folder: Path, home: Path) -> str:
    """The split that a folder of a data set is called like, by one of its names; or an empty text."""
    absolute = absolute_path(folder)
    split = split_of_folders(absolute.relative_to(home).parts) if absolute.is_relative_to(home) else ""
    return plain_split(split)
