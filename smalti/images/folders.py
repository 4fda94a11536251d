"""What is in a folder and below it: the images, and what is left out, with the reason of each.

Links are followed; a real folder is listed once, however many of them lead to it.
"""

import heapq
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smalti.images.kinds import kind_of, suffix_of

SYSTEM_NAMES = (
    "__macosx|@eadir|#recycle|#snapshot|@tmp|@recycle|$recycle.bin|recycler|system volume information|lost+found"
    "|__pycache__|thumbs.db|ehthumbs.db|desktop.ini|icon\r"
)
SYSTEM = frozenset(SYSTEM_NAMES.split("|"))
HIDDEN, TWIN = "hidden, or a system's own", "another name of"
NO_IMAGE, UNREADABLE, BROKEN = "no image", "an image that smalti does not read", "cannot be opened"
SHOWN = 60  # characters of a name


class ImageFile(NamedTuple):
    """An image: its name in the folder, with "/" between the parts; what tells real files apart; whether by a link."""

    name: str
    path: str
    identity: tuple[int, int]
    is_linked: bool


class LeftOut(NamedTuple):
    """What is not taken: its name, why, and more of that: a remedy, the other name, what the system said."""

    name: str
    why: str
    more: str = ""


class Found(NamedTuple):
    """What a walk found: images, and everything else, each sorted by name, part by part."""

    images: Sequence[ImageFile]
    left_out: Sequence[LeftOut]


def find_images(folder: Path | str) -> list[Path]:
    """The image files of a folder and below it, sorted; see `look_through`."""
    return [Path(image.path) for image in look_through(folder).images]


def look_through(folder: Path | str) -> Found:
    """The images of a folder and below it, each once, by a real name before a link's; see `walk`."""
    found = walk(folder)
    images, twins = each_once(found.images, lambda image: image.is_linked)
    return Found(images, [*found.left_out, *twins])


def walk(folder: Path | str, aspect: Callable[[str], Hashable] = lambda name: None) -> Found:
    """Find the images of a folder and below it, in time linear in what is there.

    Left out are names that begin with a dot and a system's own (`__MACOSX`, `@eaDir`, `Thumbs.db`, ...) at any level
    below the folder; what is no image by its suffix or its first bytes; images of a kind that smalti does not read;
    what cannot be opened.

    Args:
        folder: where to begin; itself perhaps hidden, or a link.
        aspect: of a folder's name. A real folder that links give several names is listed once for each value of this,
            real names first; the same file may then be found several times.
    """
    images: list[ImageFile] = []
    left_out: list[LeftOut] = []
    listed: dict[Hashable, str] = {}
    folders = [("", os.fspath(folder), False)]
    links: list[tuple[list[str], tuple[str, str, bool]]] = []  # a heap, by name
    while folders or links:
        if not folders:  # real folders first
            folders.append(heapq.heappop(links)[1])
        name, path, is_linked = folders.pop()
        try:
            key = (_identity(os.stat(path)), aspect(name))
            if key in listed:
                left_out.append(LeftOut(name, TWIN, listed[key] or "the folder itself"))
                continue
            listed[key] = name
            with os.scandir(path) as entries:
                found = list(entries)
        except OSError as error:
            left_out.append(LeftOut(name, BROKEN, error.strerror or ""))
            continue
        for entry in found:
            own = f"{name}/{entry.name}" if name else entry.name
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                left_out.append(LeftOut(own, HIDDEN))
            elif entry.is_dir(follow_symlinks=False):
                folders.append((own, entry.path, is_linked))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                heapq.heappush(links, (own.split("/"), (own, entry.path, True)))
            elif isinstance(file := _look(own, entry, is_linked), ImageFile):
                images.append(file)
            else:
                left_out.append(file)
    images.sort(key=lambda image: image.name.split("/"))
    left_out.sort(key=lambda file: file.name.split("/"))
    return Found(images, left_out)


def _look(name: str, entry: os.DirEntry[str], is_linked: bool) -> ImageFile | LeftOut:
    try:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            return LeftOut(name, BROKEN, "no regular file")
        kind = kind_of(entry.path)
    except OSError as error:
        return LeftOut(name, BROKEN, error.strerror or "")
    if kind is None:
        return LeftOut(name, NO_IMAGE)
    if not kind.is_read:
        return LeftOut(name, UNREADABLE, kind.remedy)
    return ImageFile(name, entry.path, _identity(status), is_linked or entry.is_symlink())


def each_once(images: Iterable[ImageFile], rank: Callable[[ImageFile], Any]) -> tuple[list[ImageFile], list[LeftOut]]:
    """Of the names of one file the one of the smallest rank, or the first of those; and the others."""
    images, best = list(images), dict[tuple[int, int], ImageFile]()
    for image in images:
        if image.identity not in best or rank(image) < rank(best[image.identity]):
            best[image.identity] = image
    twins = [
        LeftOut(image.name, TWIN, best[image.identity].name) for image in images if best[image.identity] is not image
    ]
    return [image for image in images if best[image.identity] is image], twins


def sentence(left_out: Iterable[LeftOut]) -> str:
    """ "left out 13 files that are no images that smalti reads (.heic 9, .txt 4); for .heic: ..."; empty for none."""
    files = [file for file in left_out if file.why in (NO_IMAGE, UNREADABLE, BROKEN)]
    if not files:
        return ""
    remedies: dict[str, str] = {}
    counts = Counter[str]()
    for file in files:
        suffix = shown(suffix_of(file.name), 12) or "without a suffix"
        counts[suffix] += 1
        if file.why == UNREADABLE:
            remedies[suffix] = file.more
    told = ", ".join(f"{suffix} {count}" for suffix, count in counts.most_common(6)) + ", ..." * (len(counts) > 6)
    text = f"left out {counted(len(files), 'file')} that {'is no image' if len(files) == 1 else 'are no images'}"
    return "; ".join([f"{text} that smalti reads ({told})", *(f"{one}: {two}" for one, two in [*remedies.items()][:3])])


def counted(number: int, noun: str) -> str:
    """ "1 file", "1,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(name: str, most: int = SHOWN) -> str:
    """A name as it may stand in a line: without controls and halves of characters, and not long."""
    text = name if len(name) <= most else f"{name[: most // 2]}...{name[-(most // 2) :]}"
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def storable(name: str) -> str:
    """A name as text that any file can hold: bytes that are no UTF-8 as \\udcXX."""
    return name.encode(errors="backslashreplace").decode()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
