"""The verb `convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smalti.errors import SmaltiError
from smalti.files import write_json

if TYPE_CHECKING:
    from smalti.interop.convert import Converted

RECORD = "conversion.json"  # in the folder of a converted model: what it was made of


def convert(
    source: str,
    *,
    out: str,
    kind: str | None = None,
    config: str | None = None,
    compare: Literal["distance", "direction", "product"] | None = None,
    image_size: int | None = None,
    revision: str | None = None,
    no_check: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Make a model folder of a tokenizer that another project has trained; no code in its files is run.

    Args:
        source: a file (safetensors, .pt, .ckpt, .pkl, msgpack), a folder, or owner/name on the hub.
        out: the folder of the model, which every other verb takes.
        kind: the format, where the names of its tensors are those of several; see docs/interop.md.
        config: its config.json or .yaml, where it does not lie beside the file.
        compare: how the nearest code is found, where it is not as the format has it: distance, direction (features and
            code vectors scaled to length 1), or product.
        image_size: of the images that it was trained on; by default what its config says, or 256.
        revision: a branch, tag or commit of the hub's repository.
        no_check: leave out the check with bundled pictures, which takes a minute for large networks.
        force: replace the converted model in the folder.
    """
    from smalti.interop.check import check
    from smalti.interop.convert import converted
    from smalti.interop.weights import read_weights

    folder = _folder(out, force)
    weights = read_weights(source, config, revision)
    found = converted(weights, kind, compare=compare, image_size=image_size)
    record: dict[str, Any] = {
        "source": weights.path.name,
        "recognised": f"{found.format.title}, {found.in_words}",
        "tensors": found.used,
        "left_out": found.left_out,
        "licence": f"code {found.format.code}; weights {found.format.weights}",
        "notes": found.notes,
    }
    if not no_check:
        record["check"] = check(found.model, found.format.has_decoder).in_words
    found.model.save_complete(folder, _card(found, record))
    write_json(folder / RECORD, record)
    return {**record, "written": out}


def _folder(out: str, force: bool) -> Path:
    """The folder to write to.

    Raises:
        SmaltiError: it is a file, holds what is no converted model, or one without `force`.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise SmaltiError(f"{out} is a file; --out is a folder here")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held and RECORD not in held:
        raise SmaltiError(f"{out} holds {held[0]!r}, and no converted model; choose another --out")
    if held and not force:
        raise SmaltiError(f"{out} holds a converted model; --force replaces it")
    return folder


def _card(found: "Converted", record: dict[str, Any]) -> str:
    """The README.md of the folder."""
    facts = "\n".join(f"- {name}: {value}" for name, value in record.items() if value and name != "notes")
    notes = "\n".join(f"- {note}" for note in record["notes"])
    use = "codes = model.encode(images)      # integers"
    if found.format.has_decoder:
        use += "\nimages = model.decode(codes)      # (B, C, H, W) in [0, 1]"
    return f"""---
library_name: smalti
pipeline_tag: image-to-image
tags: [smalti, image-tokenizer, converted]
---
# {found.format.title}, converted

The weights of another project as a smalti autoencoder; their licence is their authors'.

{facts}
{notes}

```python
from smalti import Autoencoder

model = Autoencoder.from_pretrained("this folder")
{use}
```
"""
