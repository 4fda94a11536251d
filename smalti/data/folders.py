"""A folder as a data set: what each of its files is, its split, class and captions, and why.

The walk is that of `smalti.images.folders`, what names say is in `smalti.data.layout`, what tables say in
`smalti.data.tables`; here they become one.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from smalti.data.captions import SIDECARS, Captions
from smalti.data.layout import classes_of, notes_of, split_of_folder, split_of_name
from smalti.data.matching import Names, fold
from smalti.data.source import Source, file_identity, file_stamp
from smalti.data.splits import RANKS, Splits, assign_splits
from smalti.data.tables import is_table, read_table
from smalti.errors import SmaltiError
from smalti.images.folders import NO_IMAGE, ImageFile, LeftOut, counted, each_once, sentence, shown, storable, walk
from smalti.images.kinds import suffix_of
from smalti.images.reading import read_pixels

LONGEST_NAME = 100  # characters of a path in an error
TABLE, SIDECAR = "a table", "captions beside an image"


class _Said(NamedTuple):
    """What tables say of one image."""

    captions: list[tuple[str, str]]
    splits: dict[str, str]  # and which table
    labels: list[str]


def open_folder(folder: Path) -> tuple[Source, Splits]:
    """The images of a folder and all below it, and their splits.

    Raises:
        SmaltiError: no images, or a damaged table.
    """
    found = walk(folder, lambda name: split_of_folder(name)._replace(by=""))
    images, twins = each_once(found.images, _rank)
    if not images:
        raise SmaltiError(_nothing_in(folder, found.left_out))
    place = {image.identity: index for index, image in enumerate(images)}
    names, paths = [image.name for image in images], [image.path for image in images]
    tables = [file.name for file in found.left_out if file.why == NO_IMAGE and is_table(file.name)]
    said, notes = _read_tables(folder, tables, {image.name: place[image.identity] for image in found.images})
    left_out, beside = _sort_out([*found.left_out, *twins], found.images, place)

    named, reasons = list[str | None](), list[str]()
    for index, (split, by, _) in enumerate(map(split_of_name, names)):
        own = said[index].splits if index in said and split != "test" else {}  # what is called test is never trained on
        chosen = min(own, key=lambda split: RANKS[split], default=split)
        named.append(chosen)
        by_name = f"the folder {shown(by)}" if by else "its own name"
        reasons.append(f"the column split of {own[chosen]}" if chosen in own else by_name)
    folders = [name.rpartition("/")[0] for name in names]
    classes = list(map(storable, classes_of(folders)))
    for index, own in said.items():
        classes[index] = own.labels[0] if own.labels else classes[index]
    captions = Captions(folder, {index: own.captions for index, own in said.items()}, beside, len(names))
    source = Source(
        reader=lambda index, reading: read_pixels(paths[index], reading, shown(paths[index], LONGEST_NAME)),
        names=names,
        identity=lambda index: file_identity(paths[index]),
        stamp=lambda index: file_stamp(paths[index]),
        labels={"class": classes} if any(classes) else {},
        captions=captions if captions.any else (),
        left_out=left_out,
        notes=[
            *notes,
            *_unread_tables(left_out),
            *_against_names(names, said),
            *notes_of(dict.fromkeys(folders)),
            *_twin_notes(twins),
        ],
    )
    return source, assign_splits(names, named, reasons, {split_of_name(twin.name).split for twin in twins})


def _rank(image: ImageFile) -> tuple[int, bool]:
    """Of the names of one file: a test image is one by any name; then names with a split, real ones, the first."""
    return RANKS[split_of_name(image.name).split], image.is_linked


def _nothing_in(folder: Path, left_out: Sequence[LeftOut]) -> str:
    """Why there is nothing, with a hint at what was meant."""
    text = f"{shown(str(folder), 100)}: no images in this folder"
    if any("idx3-ubyte" in file.name for file in left_out):
        below = next(file.name for file in left_out if "idx3-ubyte" in file.name).rpartition("/")[0]
        return f"{text}; there are idx files in {shown(below)}: give that folder"
    if any(suffix_of(file.name) == ".parquet" and not is_table(file.name) for file in left_out):
        below = {file.name.rpartition("/")[0] for file in left_out if suffix_of(file.name) == ".parquet"}
        where = shown(str(folder / below.pop()) if len(below) == 1 else f"{folder}/**", 100)
        return f"{text}; there are parquet files: give '{where}/*.parquet', in quotes"
    return "; ".join(filter(None, [text, sentence(left_out)]))


def _unread_tables(left_out: Sequence[LeftOut]) -> list[str]:
    """Of a table at the top that is not called as one."""
    suffixes = (".csv", ".tsv", ".jsonl", ".parquet")
    names = [file.name for file in left_out if file.why == NO_IMAGE and suffix_of(file.name) in suffixes]
    first = [name for name in names if "/" not in name][:1]
    return [
        f"{shown(name)} is not read: captions, classes and splits are in metadata{suffix_of(name)}" for name in first
    ]


def _against_names(names: Sequence[str], said: Mapping[int, _Said]) -> list[str]:
    """Of images called test of which a column says otherwise."""
    found = [names[index] for index, own in said.items() if own.splits and "test" not in own.splits]
    found = [name for name in found if split_of_name(name).split == "test"]
    if not found:
        return []
    stay = f"{counted(len(found), 'image')} called test of which a column says otherwise stay in test"
    return [f"{stay}, the first: {shown(found[0])}; rename the folder if it is no test"]


def _twin_notes(twins: Sequence[LeftOut]) -> list[str]:
    """Of files under names in several splits."""
    across = [twin for twin in twins if split_of_name(twin.name).split != split_of_name(twin.more).split]
    if not across:
        return []
    first = f"{shown(across[0].name)} is {shown(across[0].more)}"
    return [f"{len(across)} names are of files that count in another split, the first: {first}"]


def _read_tables(folder: Path, tables: Sequence[str], places: Mapping[str, int]) -> tuple[dict[int, _Said], list[str]]:
    """What the tables of a folder say of each image, by its place, and what is odd about them."""
    said: dict[int, _Said] = defaultdict(lambda: _Said([], {}, []))
    notes: list[str] = []
    known = places if tables else {}
    names = Names(list(known), list(known.values()), os.path.abspath(folder))
    for name in tables:
        table = read_table(folder / name, name)
        images = names.find_all([row.file for row in table.rows], name.rpartition("/")[0])
        for row, image in zip(table.rows, images, strict=True):
            if image is not None:
                said[image].captions.extend(row.captions)
                said[image].labels.extend([row.label] if row.label else [])
                if row.split:
                    said[image].splits.setdefault(row.split, shown(name))
        notes.extend(table.notes)
        lost = [row for row, image in zip(table.rows, images, strict=True) if image is None]
        if lost:
            what = f"{len(lost)} of {len(table.rows)} rows match no image"
            notes.append(f"{shown(name)}: {what}, the first: row {lost[0].number}, {shown(lost[0].file) or 'no name'}")
    classes = [index for index, own in said.items() if len(set(own.labels)) > 1]
    if classes:
        own = " and ".join(shown(label, 20) for label in dict.fromkeys(said[classes[0]].labels))
        notes.append(f"{counted(len(classes), 'image')} of several classes in tables, the first: {own}; that is taken")
    several = [index for index, own in said.items() if len(own.splits) > 1]
    if several:
        own = said[several[0]].splits
        what = f"{len(several)} images have several splits in tables, the first: {' and '.join(own)}"
        notes.append(f"{what}; it is taken for {min(own, key=lambda split: RANKS[split])}")
    return said, notes


def _sort_out(
    left_out: Sequence[LeftOut], images: Sequence[ImageFile], place: Mapping[tuple[int, int], int]
) -> tuple[list[LeftOut], dict[int, str]]:
    """The files with those that are read under their right reason, and for images the captions' file beside them."""
    named: dict[str, list[int]] = defaultdict(list)
    for image in images:
        for key in {fold(image.name), fold(_without_suffix(image.name))}:
            named[key].append(place[image.identity])
    sorted_out, beside = list[LeftOut](), dict[int, str]()
    for file in left_out:
        key = fold(_without_suffix(file.name))
        if file.why != NO_IMAGE:
            sorted_out.append(file)
        elif is_table(file.name):
            sorted_out.append(LeftOut(file.name, TABLE))
        elif suffix_of(file.name) in SIDECARS and key in named:
            beside |= {index: file.name for index in named[key] if index not in beside}
            sorted_out.append(LeftOut(file.name, SIDECAR))
        else:
            sorted_out.append(file)
    return sorted_out, beside


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]
