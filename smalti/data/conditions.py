"""Conditions of a prior: the labels and captions of a data set."""

from collections.abc import Iterable, Sequence

from smalti.data.sources import Source, open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError


def labels_of(data: str, split: Split, kind: str) -> Sequence[str]:
    """The label of each image of a split.

    Raises:
        SmaltiError: the data has no labels of this kind.
    """
    source = open_data(data, split)
    if kind not in source.labels:
        known = ", ".join(source.labels) or "none"
        raise SmaltiError(f"{data} has no labels of the kind {kind!r}; it has: {known}")
    return [source.labels[kind][index] for index in source.indices]


def captions_of(source: Source, languages: Iterable[str]) -> list[list[str]]:
    """The captions of each image of a part of the data, in the order of `languages`; at least one each.

    Raises:
        SmaltiError: an image without a caption in any of them.
    """
    if not source.captions:
        raise SmaltiError(
            f"{source.name} has no captions; a folder's stand in metadata.csv (file_name, text); or train with --label"
        )
    rows = [
        [source.captions[index][language] for language in languages if source.captions[index].get(language, "").strip()]
        for index in source.indices
    ]
    for position, row in enumerate(rows):
        if not row:
            known = ", ".join(source.captions[source.indices[position]]) or "none"
            raise SmaltiError(
                f"{source.name}: {source.name_of(position)} has no caption in {', '.join(languages)}; it has: {known}"
            )
    return rows
