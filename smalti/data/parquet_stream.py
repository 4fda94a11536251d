"""Parquet files as a stream: row group by row group; names, order and splits are those of `open_parquet`."""

from collections.abc import Collection, Iterator
from functools import partial

import numpy as np

from smalti.data.layout import split_of_name
from smalti.data.parquet import columns_of, damage, files_of, image_bytes, opened
from smalti.data.places import Place, is_address, places_of
from smalti.data.splits import usual_split
from smalti.data.streams import Example, Part, Stream
from smalti.data.tables import captions_in, numbered
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_pixels

AT_ONCE = 128  # rows


def stream_parquet(text: str) -> Stream | None:
    """The images of parquet files, a part for each file; None where a column of splits needs all rows at once.

    Raises:
        SmaltiError: as of `open_parquet`.
    """
    if is_address(text):
        places = places_of(text)
        names = called = [place.name for place in places]
    else:
        paths, called, names, _ = files_of(text)
        places = [Place(path) for path in paths]
    counts, has_splits = [], False
    for place in places:
        with damage(place.path), place.open() as file:
            own = opened(file)
            counts.append(own.metadata.num_rows)
            has_splits |= not {"split", "perhaps"}.isdisjoint(columns_of(own, place.path)[1])
    if has_splits and not is_address(text):
        return None
    named = [split_of_name(name).split for name in called]
    first, parts = 0, []
    for place, name, own, count in zip(places, names, named, counts, strict=True):
        parts.append(Part(name, partial(_examples, place, name, first, own, set(named)), count))
        first += count

    def stamps() -> Iterator[tuple[str, str]]:
        for place, name, count in zip(places, names, counts, strict=True):
            stamp = place.stamp
            yield from ((f"{name}#{row}", f"{stamp}#{row}") for row in range(count))

    return Stream(text, parts, stamps)


def _examples(
    place: Place, name: str, first: int, named: str | None, known: Collection[str | None], start: int
) -> Iterator[Example]:
    """The rows of a file from one on; `first` is the number of its first row in the whole data."""
    with damage(place.path), place.open() as opened_file:
        file = opened(opened_file)
        image, of_kind = columns_of(file, place.path)
        columns, row = [image, *of_kind.values()], 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row + count <= start:
                row += count
                continue
            for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=columns):
                for cells in batch.to_pylist():
                    if row >= start:
                        yield _example(f"{name}#{row}", first + row, cells, image, of_kind, named, known)
                    row += 1


def _example(
    key: str,
    number: int,
    cells: dict,
    image: str,
    of_kind: dict[str, str],
    named: str | None,
    known: Collection[str | None],
) -> Example:
    label = cells.get(of_kind.get("label", ""))
    captions = numbered(captions_in(cells.get(of_kind.get("text", ""))))

    def read(reading: Reading) -> np.ndarray:
        return read_pixels(image_bytes(cells[image], key), reading, key)

    caption = next(iter(captions.values()), "")
    return Example(key, read, number, usual_split(key, named, known), "" if label is None else str(label), caption)
