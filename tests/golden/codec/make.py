"""How the golden files of version 1 were made; not to be run again: what it wrote decodes for ever.

python tests/golden/codec/make.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from smalti.codec import Archive, Codec
from tests.codec.conftest import kinds_of_images, save_model, save_prior
from tests.conftest import draw_image


def main(folder):
    model = save_model(folder / "model")
    priors = {kind: save_prior(folder / kind, model, "model", kind=kind) for kind in ("pixelcnn", "transformer")}
    images = [draw_image(index, (24, 20)) for index in range(5)] + kinds_of_images()
    expected = {}
    for name, prior, options in [
        ("fixed", None, {"coder": "fixed"}),
        ("histogram", None, {"coder": "histogram"}),
        ("adaptive", None, {"images_per_chunk": 4}),
        ("lossless", None, {"lossless": True}),
        ("pixelcnn", priors["pixelcnn"], {}),
        ("transformer", priors["transformer"], {"lossless": True, "images_per_chunk": 3}),
    ]:
        codec = Codec(model, prior, **options)
        (folder / f"{name}.smalti").write_bytes(codec.compress(images, [f"image {i}" for i in range(len(images))]))
        with Archive.open(folder / f"{name}.smalti") as archive:
            codes = [grid for number in range(len(archive.chunks)) for grid in codec.read_codes(archive, number)]
            pictures = [np.asarray(image) for _, image in codec.images(archive)]
        for index, (grid, picture) in enumerate(zip(codes, pictures, strict=True)):
            expected[f"{name}/codes/{index}"], expected[f"{name}/pixels/{index}"] = grid, picture
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
