"""What the names of folders and files say: to which split an image belongs, and of which class it is. Pure functions.

The rules are in docs/training.md, the layouts in tests/data/layouts.py.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from smalti.images.folders import shown

SPLIT_WORDS = {
    "train": "train training trains trn trainval trainings entrenamiento treino treinamento entra[iî]nement"
    " addestramento imagestr обучение 训练 訓練",
    "validation": "validation valid val dev minival validierung validierungs validaci[oó]n valida[cç][aã]o validazione"
    " 验证 検証",
    "test": "test testing tests tst eval evaluation holdout heldout devtest minitest prueba pruebas teste imagests"
    " тест 测试 測試 テスト",
}
STRONGEST = ("test", "validation", "train")
CONTAINER_WORDS = (
    "images image imgs img jpegimages pictures pics photos photographs data dataset datasets jpg jpeg jpegs png pngs"
    " all batch part shard chunk fold split splits partition"
)
CONTAINERS = frozenset(CONTAINER_WORDS.split())
_TAIL = (
    "(?:sets?|datasets?|data|images?|imgs?|pictures?|pics?|photos?|files?|splits?|folders?|dirs?|hr|lr|v"
    "|daten|datensatz|bilder|menge|集|データ)?"
)
_WORD = {split: re.compile(f"(?:{'|'.join(words.split())}){_TAIL}") for split, words in SPLIT_WORDS.items()}
_MAYBE = re.compile(  # in all words; most names have none
    r"train|tre?i?n|val|dev|te?st|h[oe]ld.?out|t10k|imagest[rs]|prueba|addestr|[^\x00-\x7f]", re.IGNORECASE
)
_HELD_OUT = re.compile(r"(h[oe]ld)[\W_]?(?=out)", re.IGNORECASE)
_LOOKS = re.compile("train|test|^valid|^eval")


class Said(NamedTuple):
    """What a name says of the split: it, the part of the name that says so, and whether any other goes before."""

    split: str | None
    by: str = ""
    is_weak: bool = False


@lru_cache(1 << 17)
def words_of(name: str) -> frozenset[str]:
    """The words of a name, in lower case: its runs of letters, and the parts of those that capitals set apart."""
    runs = re.findall(r"[^\W\d_]+", name)
    parts = [part for run in runs for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", run)]
    return frozenset(word.lower() for word in [*runs, *parts])


@lru_cache(1 << 17)
def splits_in(name: str) -> frozenset[str]:
    """The splits whose words are in the name of one folder or file: "train2017", "x_test", "testB", "valset"."""
    if not name.isascii():
        name = "".join(own for own in unicodedata.normalize("NFKC", name) if unicodedata.category(own) != "Cf")
    if not _MAYBE.search(name):
        return frozenset()
    if re.search("(?<![a-z])t10k(?![a-z])", name, re.IGNORECASE):  # MNIST's own word
        return frozenset({"test"})
    name = _HELD_OUT.sub(r"\1", name)
    words = [*words_of(name), *re.findall(r"(?<=[A-Z]{2})[a-z]+", name)]  # VOCtest
    return frozenset(split for split, word in _WORD.items() if any(map(word.fullmatch, words)))


def stem_of(name: str) -> str:
    """The name of a file without its last suffix."""
    return name.rpartition(".")[0] or name


@lru_cache(1 << 17)
def split_of_folder(folder: str) -> Said:
    """The split that the folders of a path say: test before validation before train, whichever is nearer.

    A folder called train_val is the training images of both. One that names test beside others, as train_test_split,
    says something only where no other folder does: then test, weakly.
    """
    clear: dict[str, str] = {}
    mixed = Said(None)
    parts = folder.split("/")
    for number, part in enumerate(parts, 1):
        found, by = splits_in(part), "/".join(parts[:number])
        if len(found) == 1:
            clear[next(iter(found))] = by
        elif found == {"train", "validation"}:
            clear["train"] = by
        elif found:
            mixed = Said("test", by, is_weak=True)
    return next((Said(split, clear[split]) for split in STRONGEST if split in clear), mixed)


def split_of_name(name: str) -> Said:
    """The split that the name of an image says, with its folders: these, but test in the file's own name is test.

    Where no folder says anything the file's name may: train_001.png.
    """
    folder, _, file = name.rpartition("/")
    by_folder, own = split_of_folder(folder), splits_in(stem_of(file))
    if by_folder.split == "test" or not own or (by_folder.split and "test" not in own):
        return by_folder
    return Said(next(split for split in STRONGEST if split in own), "")


def is_container(folder: str) -> bool:
    """Whether a folder is called what says nothing of its images: images, data, part_3."""
    words = words_of(folder)
    return bool(words) and words <= CONTAINERS


def class_path(folder: str, classes: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The folders of a path that are neither splits nor containers, or are named as classes; the last is the class."""
    parts = folder.split("/") if folder else []
    places = enumerate(parts, 1)
    return tuple(
        part
        for number, part in places
        if not is_container(part) and (not splits_in(part) or "/".join(parts[:number]) in classes)
    )


def _folders_in(folders: Iterable[str]) -> dict[str, set[str]]:
    """The names of the folders in each folder."""
    parts: dict[str, set[str]] = defaultdict(set)
    known: set[str] = set()
    for folder in folders:
        while folder and folder not in known:
            known.add(folder)
            folder, _, part = folder.rpartition("/")
            parts[folder].add(part)
    return parts


def _trains(parts: Mapping[str, set[str]]) -> frozenset[str]:
    """The folders of railway trains: in a split, called train alone, beside classes, as test/train beside test/bus."""
    found = set()
    for folder, own in parts.items():
        called = [name for name in own if splits_in(name) == {"train"}]
        if called and split_of_folder(folder).split and not all(splits_in(name) or is_container(name) for name in own):
            found |= {f"{folder}/{name}" for name in called}
    return frozenset(found)


def classes_of(folders: Sequence[str]) -> list[str]:
    """The class of the images of each folder: the last folder that is neither a split nor a container, "" for none.

    Where folders of one name lie in different ones, as car/red and fruit/red, as many folders more as tell them apart.
    """
    trains = _trains(_folders_in(folders))
    paths = {folder: class_path(folder, trains) for folder in dict.fromkeys(folders)}
    same: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path in paths.values():
        if path:
            same[path[-1]].add(path)
    names: dict[tuple[str, ...], str] = {(): ""}
    for alike in same.values():
        longest, depth = max(map(len, alike)), 1
        while depth < longest and len({path[-depth:] for path in alike}) < len(alike):
            depth += 1
        names |= {path: "/".join(path[-depth:]) for path in alike}
    return [names[paths[folder]] for folder in folders]


def notes_of(folders: Iterable[str]) -> list[str]:
    """What a person may have meant otherwise, one line each, of the folders that have images."""
    parts = _folders_in(folders)
    known = {f"{folder}/{name}" if folder else name for folder, own in parts.items() for name in own}
    trains = _trains(parts)
    named = [f"the folder {shown(folder)} is taken for a class" for folder in sorted(trains)]
    others = {folder: {name for name in own if f"{folder}/{name}" not in trains} for folder, own in parts.items()}
    return [*_alikes(parts), *named, *_classes_like_splits(others), *_mixed(known - trains), *_longer_classes(known)]


def _alikes(parts: dict[str, set[str]]) -> list[str]:
    """Of folders that look like splits and are none."""
    names = sorted({name for own in parts.values() for name in own if not splits_in(name)})
    alike = [name for name in names if any(map(_LOOKS.search, words_of(name)))]
    return [f"the folder {shown(name)} is not taken for a split: rename it if it is one" for name in alike]


def _classes_like_splits(parts: dict[str, set[str]]) -> list[str]:
    """Of splits beside folders that are none."""
    notes = []
    for own in (parts[folder] for folder in sorted(parts)):
        splits = sorted(name for name in own if splits_in(name))
        others = sorted(name for name in own if not splits_in(name) and not is_container(name))
        if splits and others:
            what, it = ("is a split", "it") if len(splits) == 1 else ("are splits", "them")
            notes.append(f"{_listed(splits)} {what} beside {_listed(others)}: rename {it} if a class is meant")
    return list(dict.fromkeys(notes))


def _mixed(folders: set[str]) -> list[str]:
    """Of paths that name several splits."""
    notes = []
    for folder in sorted(folders):
        named = [part for part in folder.split("/") if splits_in(part)]
        if splits_in(folder.rpartition("/")[2]) and len(frozenset().union(*map(splits_in, named))) > 1:
            notes.append(f"{shown(folder)} names several splits and is taken for {split_of_folder(folder).split}")
    return notes


def _longer_classes(folders: set[str]) -> list[str]:
    names = sorted(folders)
    alike: dict[str, list[str]] = defaultdict(list)
    for own in sorted(set(classes_of(names))):
        alike[own.rpartition("/")[2]].append(own)
    several = [own for own in alike.values() if len(own) > 1]
    return [f"{_listed(own)} are {len(own)} classes, not one, for their folders lie apart" for own in several]


def _listed(names: Sequence[str]) -> str:
    """A few names, for a sentence."""
    return ", ".join(shown(name, 30) for name in names[:3]) + ", ..." * (len(names) > 3)
