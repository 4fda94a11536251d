"""Which image a row of a table means: by its name, in the spellings that people and programs write."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from posixpath import normpath
from urllib.parse import unquote

from smalti.images.kinds import BY_SUFFIX, suffix_of

AMBIGUOUS = -1
LONGEST = 1024  # characters of an absolute path that is looked at


class Names:
    """Finds names by what is written of them, each in a few look-ups.

    Tried in turn, each from the table's folder and from the top: the name as it is; without regard to case and to how
    accents are composed; without a suffix; the end of an absolute path, but not where other rows show that fewer
    folders are to be left out; the end of a path that begins with folders which are those of the data; the name of a
    file alone, wherever it lies. What fits several images fits none. Of an address what follows its path says nothing.

    Args:
        names: all names, with "/" between the parts.
        images: the image that each is a name of; several may be of one.
        root: where the data is.
    """

    def __init__(self, names: Sequence[str], images: Sequence[int], root: str = ""):
        self._exact = dict(zip(names, images, strict=True))
        self._depth = max((name.count("/") + 1 for name in names), default=0)
        self._roots = {fold(end) + "/" for end in _ends(root)}
        self._loose: dict[str, int] = {}  # keys begin with what they leave out
        for name, image in self._exact.items():
            folded, file = fold(name), fold(name.rpartition("/")[2])
            for key in {f"/{folded}", f"stem/{_stem(folded)}", f"file/{file}", f"file stem/{_stem(file)}"}:
                if self._loose.setdefault(key, image) != image:
                    self._loose[key] = AMBIGUOUS

    def find_all(self, files: Sequence[str], folder: str) -> list[int | None]:
        """The image of each file that a table in a folder names; None of one that is nowhere."""
        found = [self._find(file, folder) for file in files]
        missing = [place for place, image in enumerate(found) if image is None and _is_absolute(files[place])]
        ends = {place: end for place in missing if (end := self._end(files[place], folder))}
        bases = {base for base, _ in ends.values()}
        for place, (base, image) in ends.items():
            if bases.isdisjoint(base.rsplit("/", up)[0] for up in range(1, base.count("/") + 1)):
                found[place] = image
        return found

    def _find(self, file: str, folder: str) -> int | None:
        for spelling in _spellings(file):
            if (image := self._known(spelling, folder)) is not None:
                return image
            if not _is_absolute(spelling) and len(spelling) <= LONGEST:
                plain = _plain(spelling)
                for start in re.finditer("/", plain):
                    end = start.end()
                    if fold(plain[:end]) in self._roots and (image := self._known(plain[end:], "")) is not None:
                        return image
        return None

    def _known(self, file: str, folder: str) -> int | None:
        if not file:
            return None
        for name in self._places(file, folder):
            if name in self._exact:
                return self._exact[name]
        plain = _plain(file)
        if _is_absolute(file):
            return None
        keys = [f"/{fold(name)}" for name in self._places(plain, folder)]
        if suffix_of(plain) not in BY_SUFFIX:
            keys += [f"stem/{fold(name)}" for name in self._places(plain, folder)]
        if "/" not in plain:
            keys.append(f"file/{fold(plain)}")
            keys += [] if suffix_of(plain) in BY_SUFFIX else [f"file stem/{fold(plain)}"]
        return self._first(keys)

    def _end(self, file: str, folder: str) -> tuple[str, int] | None:
        """The longest end of an absolute path that is known: (the folders left out, the image)."""
        for spelling in _spellings(file) if len(file) <= LONGEST else ():
            if (end := self._end_of(_plain(spelling).split("/"), folder)) is not None:
                return end
        return None

    def _end_of(self, parts: Sequence[str], folder: str) -> tuple[str, int] | None:
        for start in range(max(1, len(parts) - self._depth), len(parts)):
            end = "/".join(parts[start:])
            keys = [f"/{fold(name)}" for name in self._places(end, folder)]
            if suffix_of(end) not in BY_SUFFIX:
                keys += [f"stem/{fold(name)}" for name in self._places(end, folder)]
            if (image := self._first(keys)) is not None:
                return "/".join(parts[:start]), image
        return None

    def _first(self, keys: Iterable[str]) -> int | None:
        """The image of the first key that is known; None too where it fits several."""
        image = next((self._loose[key] for key in keys if key in self._loose), AMBIGUOUS)
        return None if image == AMBIGUOUS else image

    @staticmethod
    def _places(file: str, folder: str) -> list[str]:
        """Where a file may lie: in the table's folder, or from the top."""
        return list(dict.fromkeys(normpath(place) for place in (f"{folder}/{file}" if folder else file, file)))


def fold(name: str) -> str:
    """A name without regard to case and to how accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def _plain(file: str) -> str:
    """A path with slashes, without "./"."""
    return normpath(file.replace("\\", "/"))


def _spellings(file: str) -> list[str]:
    """What is written, and what it says as a part of an address: https://x.org/b%20c.png?width=100."""
    path = re.split("[?#]", file, maxsplit=1)[0] if "://" in file else file
    return list(dict.fromkeys((file, unquote(path) if "%" in path else path)))


def _ends(path: str) -> list[str]:
    """The last folders of a path: of /home/me/photos these are photos, me/photos and home/me/photos."""
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _is_absolute(file: str) -> bool:
    return bool(re.match(r"[/\\]|[A-Za-z]:[/\\]|\w+://", file))
