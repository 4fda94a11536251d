"""The verb `decode`."""

from pathlib import Path
from typing import Any

from smalti.files import atomic_path


def decode(run: str, codes: str, *, out: str, device: str = "cpu") -> dict[str, Any]:
    """Decode the codes of `smalti encode` to PNG pictures of the original sizes.

    Args:
        run: the folder of the model that made the codes.
        codes: the npz file.
        out: the folder for the pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.codefile import read_codes
    from smalti.apps.imagefiles import progress_bar, unused
    from smalti.images.reading import to_pil
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run, device=device)
    written: list[str] = []
    for name, item in progress_bar(read_codes(Path(codes), model.source_hash), "decoding"):
        target = unused(Path(out) / f"{Path(name).stem}.png", written)
        with atomic_path(target) as temporary:
            to_pil(model.decode_many([item])[0])[0].save(temporary)
        written.append(str(target))
    return {"written": written}
