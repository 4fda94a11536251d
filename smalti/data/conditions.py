"""Conditions of a prior: the labels and captions of a data set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from smalti.data.source import Source
from smalti.errors import SmaltiError
from smalti.images.folders import shown


def labels_of(source: Source, kind: str) -> Sequence[str]:
    """The label of each image of a part of the data.

    Raises:
        SmaltiError: the data has no labels of this kind.
    """
    if kind not in source.labels:
        known = ", ".join(source.labels) or "none"
        raise SmaltiError(f"{source.name} has no labels of the kind {kind!r}; it has: {known}")
    return [source.labels[kind][index] for index in source.indices]


def captions_of(source: Source, languages: Iterable[str]) -> list[list[str]]:
    """The captions of each image of a part of the data, in the order of `languages`; at least one each.

    Raises:
        SmaltiError: an image without a caption in any of them.
    """
    if not source.captions:
        where = "a folder has them in metadata.csv (file_name, text), or a text file beside each image"
        raise SmaltiError(f"{source.name} has no captions; {where}; or train with --label")
    rows = []
    for position, index in enumerate(source.indices):
        captions = source.captions[index]
        found = (text for language in languages for text in _of_language(captions, language))
        rows.append([text for text in found if text.strip()])
        if not rows[-1]:
            name, known = source.name_of(position), ", ".join(captions) or "none"
            what = f"{shown(name)} has no caption in {', '.join(languages)}; it has: {known}"
            raise SmaltiError(f"{source.name}: {what}; give it one, or move the image away")
    return rows


def _of_language(captions: Mapping[str, str], language: str) -> Iterator[str]:
    """All captions of one language: of "en" those of "en", "en-2", "en-3", ..."""
    key, number = language, 1
    while key in captions:
        yield captions[key]
        number += 1
        key = f"{language}-{number}"
