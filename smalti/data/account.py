"""What a data set is and why, in numbers with examples: `smalti info DATA`, and the line that `smalti train` prints."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smalti.data.batches import evenly_spread
from smalti.data.source import Source
from smalti.data.splits import SPLITS
from smalti.errors import SmaltiError
from smalti.images.folders import LeftOut, counted, sentence, shown
from smalti.images.kinds import suffix_of
from smalti.images.preprocessing import Reading
from smalti.images.remarks import Remarks

MOST_ROWS = 20  # of a table
NUM_READ = 24  # images that are read to see whether they can be


def account_of(source: Source) -> dict[str, Any]:
    """Counts and examples of the splits, classes, captions and left out files of a whole data set.

    A few evenly spread images are read; a data set is not read through.
    """
    read = _read_some(source)
    return {
        "num_images": len(source),
        "splits": _num_by_split(source),
        "channels": source.channels,
        "first_image": read["first"],
        "sizes": read["sizes"],
        "images_read": read["num"],
        "bad_images": read["bad"],
        "labels": {kind: len(set(labels)) for kind, labels in source.labels.items()},
        "caption_languages": _languages(source.captions),
        "split_rows": _split_rows(source),
        "class_rows": _class_rows(source),
        "caption_rows": _caption_rows(source),
        "left_out_rows": _left_out_rows(source.left_out),
        "notes": list(source.notes),
    }


def line_of(source: Source) -> str:
    """One line of what the whole data is: "photos: train 90 (by ...), test 10 (by ...); left out ...; note: ..."."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for split, why in zip(source.splits, source.reasons, strict=True):
        reasons[split or ""][why] += 1
    splits = []
    for split, number in _num_by_split(source).items():
        told = reasons[split].most_common(2)
        more = ", ..." if len(reasons[split]) > 1 else ""
        splits.append(f"{split} {number:,}" + (f" (by {told[0][0]}{more})" if told else ""))
    parts = [", ".join(splits)]
    parts += [counted(len(set(labels)), f"{kind} label") for kind, labels in source.labels.items()]
    parts += [told for told in (sentence(source.left_out), _notes(source.notes)) if told]
    return f"{shown(source.name, 100)}: " + "; ".join(parts)


def _notes(notes: Sequence[str]) -> str:
    more = f" (and {counted(len(notes) - 2, 'more note')}: smalti info)" if len(notes) > 2 else ""
    return "; ".join(f"note: {note}" for note in notes[:2]) + more


def _num_by_split(source: Source) -> dict[str, int]:
    counts = Counter(source.splits)
    return {split: counts[split] for split in SPLITS[:-1]}


def _read_some(source: Source) -> dict[str, Any]:
    """Sizes of a few images, and which of them are bad: all, where training has to be told their bands or scale."""
    sizes, bad, remarks = Counter[str](), list[str](), Remarks()
    chosen = [] if source.codes else evenly_spread(len(source), NUM_READ)
    first = ""
    for index in chosen:
        try:
            height, width, _ = source.read(index, Reading(source.channels, remarks=remarks)).shape
        except SmaltiError as error:
            bad.append(str(error))
            continue
        sizes[f"{width}x{height}"] += 1
        first = first or f"{shown(source.name_of(index))} ({width}x{height})"
    remarks.say()
    return {"first": first, "sizes": dict(sizes.most_common(4)), "num": len(chosen), "bad": bad}


def _split_rows(source: Source) -> list[dict[str, Any]]:
    """Split, number of images, why, and an example, by split; alike reasons of many folders as one."""
    found: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for index, (split, why) in enumerate(zip(source.splits, source.reasons, strict=True)):
        found[split, why].append(index)
    short: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for (split, why), indices in found.items():
        _, slash, name = why.rpartition("/")
        short[split, f"the folder .../{name}" if slash and len(found) > MOST_ROWS else why] += indices
    order: dict[str | None, int] = {split: place for place, split in enumerate((*SPLITS, None))}
    rows = sorted(short.items(), key=lambda row: (order[row[0][0]], -len(row[1])))
    return _at_most(
        {
            "split": split or "none",
            "images": len(indices),
            "why": why,
            "example": shown(source.names[indices[0]]),
        }
        for (split, why), indices in rows
    )


def _class_rows(source: Source) -> list[dict[str, Any]]:
    """Class, number of images, example, the largest first."""
    labels = source.labels.get("class", ())
    first = {label: index for index, label in reversed([*enumerate(labels)])}
    return _at_most(
        {"class": shown(label) or "none", "images": number, "example": shown(source.names[first[label]])}
        for label, number in Counter(labels).most_common()
    )


def _caption_rows(source: Source) -> list[dict[str, Any]]:
    """How many images have how many captions, with an example."""
    if not source.captions:
        return []
    counts: Counter[int] = Counter()
    first: dict[int, str] = {}
    for index, captions in enumerate(source.captions):
        counts[len(captions)] += 1
        example = f"{shown(source.names[index])}: {shown(next(iter(captions.values()), '-'))}"
        first.setdefault(len(captions), example)
    return _at_most(
        {"captions": f"{number} an image", "images": counts[number], "example": first[number]}
        for number in sorted(counts)
    )


def _left_out_rows(left_out: Sequence[LeftOut]) -> list[dict[str, Any]]:
    """What was not taken, by reason and suffix, the commonest first."""
    found: dict[tuple[str, str], list[LeftOut]] = defaultdict(list)
    for file in left_out:
        found[file.why, suffix_of(file.name)].append(file)
    return _at_most(
        {
            "left out": f"{why} ({shown(suffix, 12)})" if suffix else why,
            "files": len(files),
            "example": shown(files[0].name) + (f": {shown(files[0].more)}" if files[0].more else ""),
        }
        for (why, suffix), files in sorted(found.items(), key=lambda row: (-len(row[1]), row[0]))
    )


def _at_most(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows, and one that counts the others."""
    rows = list(rows)
    if len(rows) <= MOST_ROWS:
        return rows
    what, number, *others = rows[0]
    rest = rows[MOST_ROWS - 1 :]
    last = {what: f"{len(rest):,} more", number: sum(row[number] for row in rest), **dict.fromkeys(others, "")}
    return [*rows[: MOST_ROWS - 1], last]


def _languages(captions: Sequence[Mapping[str, str]]) -> list[str]:
    found = {language for row in captions for language in row}
    return sorted(language for language in found if not re.search(r"-\d+$", language))
