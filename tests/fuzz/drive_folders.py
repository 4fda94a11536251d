"""Random trees with odd names, links, tables and files: no test image is trained on, and no image is lost."""

import os
import shutil
from pathlib import Path

from smalti.data.account import account_of, line_of
from smalti.data.sources import open_data
from smalti.images.folders import walk

from ..conftest import draw_image
from .harness import Fault

SHORT = 25
PARTS = [
    *(b"train test val Test TESTING x_train test_2 testA train2017 latest contest images cat dog 0 .git".split()),
    *(b"train_val train_test_split valset dev a\xff\xfe new\nline \x1b[31m @eaDir metadata.csv".split(b" ")),
    "Café".encode(), "Cafe\u0301".encode(), b"a" * 240, b" ", b"-", b"...", b"\\", b"%s{}",
]  # fmt: skip
SUFFIXES = [b".png", b".PNG", b".jpg", b"", b".txt", b".heic", b".csv", b".JPG_large", b".png.png", b".caption"]
TEST_PARTS = (b"test", b"testing", b"test_2", b"testa")


def prepare(folder):
    """A place for trees, and the bytes of a few files."""
    from PIL import Image

    Image.fromarray(draw_image(0, (8, 8))).save(folder / "a.png")
    png = (folder / "a.png").read_bytes()
    table = b"file_name,text,split\n0.png,red,\ntest/0.png,blue,\n"
    return folder, [png, png, png[:40], b"", b"text\nmore", table, b"\0\0\0\x18ftypheic"]


def attempt(state, rng):
    """One tree of up to 24 files and links."""
    folder, contents = state
    root = os.fsencode(folder / "tree")
    os.mkdir(root)
    try:
        places = [root]
        for _ in range(int(rng.integers(1, 25))):
            parts = [PARTS[rng.integers(len(PARTS))] for _ in range(rng.integers(1, 5))]
            path = os.path.join(root, *parts) + SUFFIXES[rng.integers(len(SUFFIXES))]
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                kind, target = rng.random(), places[rng.integers(len(places))]
                if kind < 0.2:
                    os.symlink(target, path)
                elif kind < 0.25 and os.path.isfile(target):
                    os.link(target, path)
                else:
                    with open(path, "xb") as file:
                        file.write(contents[rng.integers(len(contents))])
                places += [path, os.path.dirname(path)]
            except OSError:  # a file is there already, or the name is too long
                continue
        return check(Path(os.fsdecode(root)), rng)
    finally:
        shutil.rmtree(root)


def is_test(name: str) -> bool:
    """Whether a folder or the file is called test, by hand."""
    parts = [os.fsencode(part).lower() for part in name.split("/")]
    return any(part in TEST_PARTS for part in [*parts, parts[-1].split(b".")[0]])


def check(root, rng) -> str:
    """The laws, by the walk that tells names called test from others."""
    source = open_data(root)
    identities = [source.identity(index) for index in range(len(source.names))]
    tests = {image.identity for image in walk(root, is_test).images if is_test(image.name)}
    if any(split == "train" and own in tests for split, own in zip(source.splits, identities, strict=True)):
        raise Fault("a test image is trained on")
    if len(set(identities)) < len(identities) or {*identities} != {image.identity for image in walk(root).images}:
        raise Fault("an image is lost, or there twice")
    if len(source.fingerprint) != 64 or len(source.captions or identities) != len(identities):
        raise Fault("no fingerprint, or other captions than images")
    texts = [text for captions in source.captions for text in captions.values()]
    if not line_of(source).isprintable() or not all(texts) or "None" in texts:
        raise Fault("a line that cannot be shown, or an empty caption")
    account_of(source)
    return "read"
