"""Mutated files: how many there may be, none gives a wrong image or anything but a clear error.

    python tests/codec/fuzz.py 100000

Counts what became of every mutation; the results of a run are in docs/codec.md.
"""

import collections
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from smalti.codec import CannotDecode, Codec, DamagedFile
from smalti.codec.container import MAGIC


def fix_checksum(data):
    """A header that was changed, with a checksum that fits."""
    try:
        length, place, shift = 0, len(MAGIC) + 1, 0
        while True:
            byte = data[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        end = place + length
        return data[:end] + struct.pack("<I", zlib.crc32(data[:end])) + data[end + 4 :]
    except IndexError:
        return data


def mutate(data, rng):
    """A file with some bytes changed, removed, doubled or added; half of them with a header checksum that fits."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        end = min(len(changed), 60) if rng.random() < 0.6 else len(changed)
        place = int(rng.integers(0, max(1, end)))
        match int(rng.integers(0, 5)):
            case 0 if changed:
                changed[place % len(changed)] = int(rng.integers(0, 256))
            case 1 if changed:
                changed[place % len(changed)] ^= 1 << int(rng.integers(0, 8))
            case 2:
                del changed[place : place + int(rng.integers(1, 9))]
            case 3:
                changed[place:place] = changed[place : place + int(rng.integers(1, 9))]
            case _:
                changed[place:place] = rng.bytes(int(rng.integers(1, 5)))
    return fix_checksum(bytes(changed)) if rng.random() < 0.5 else bytes(changed)


def main(count):
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.codec.conftest import save_model, save_prior
    from tests.codec.test_files import images_of, kinds_of_images
    from tests.conftest import draw_image

    folder = Path(tempfile.mkdtemp())
    model = save_model(folder / "model")
    prior = save_prior(folder / "prior", model, folder / "model")
    images = [draw_image(0, (13, 9)), draw_image(1, (8, 8)), kinds_of_images()[2].resize((9, 9))]
    files = []
    for coder in ("fixed", "histogram", "adaptive", "prior"):
        for lossless in (False, True):
            codec = Codec(model, prior, coder=coder, lossless=lossless)
            data = codec.compress(images, ["a", "b", "c"])
            files.append((f"{coder}{' lossless' * lossless}", codec, data, images_of(codec, data)))
    became, slowest = collections.Counter(), 0.0
    for number in tqdm(range(count), mininterval=5):
        name, codec, data, good = files[number % len(files)]
        changed, start = mutate(data, np.random.default_rng(number)), time.perf_counter()
        try:
            same = images_of(codec, changed) == good
            became[f"{name}: the same images" if same else f"WRONG IMAGES of {name}, mutation {number}"] += 1
        except DamagedFile:
            became[f"{name}: DamagedFile"] += 1
        except CannotDecode:
            became[f"{name}: CannotDecode"] += 1
        except Exception as error:
            became[f"CRASH of {name}, mutation {number}: {type(error).__name__} {error}"] += 1
        slowest = max(slowest, time.perf_counter() - start)
    for what, times in sorted(became.items()):
        print(f"{times:7d}  {what}")
    print(f"slowest {slowest:.2f} s")
    return any(what.startswith(("WRONG", "CRASH")) for what in became)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
