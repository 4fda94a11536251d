"""The verb `sample`: new images from a prior, or the rest of an image of which a part is kept."""

from pathlib import Path
from typing import Any

from smalti.errors import SmaltiError
from smalti.files import atomic_path


def sample(
    run: str,
    *,
    num: int = 16,
    text: str | None = None,
    label: str | None = None,
    known: str = "",
    mask: str = "",
    out: str = "sample.png",
    tokenizer: str = "",
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance: float = 1.0,
    rounds: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Sample new images from a prior, or complete one (inpainting): a grid, and a file of the codes.

    Args:
        run: the folder of a trained prior.
        num: how many images.
        text: the caption, for a prior with text; without it, the samples are unconditional.
        label: the class, for a prior with classes; without it, all of them in turn.
        known: an image to complete; its centre square is resized to the prior's image size.
        mask: what is kept of it: left-half, right-half, top-half, bottom-half, box, frame, or a PNG (white is kept).
        out: the PNG; the codes go into an npz file of the same name.
        tokenizer: where the prior's tokenizer is now; by default where it was.
        seed: of the random numbers.
        temperature: 0 is greedy.
        top_k: sample from this number of the most likely codes only; 0 is all.
        top_p: sample from the smallest set of codes with this probability only.
        guidance: classifier-free; 1 is none, 2 to 4 follows the text or label more and varies less.
        rounds: of a masked prior (maskgit); 0 is its default.
        device: cpu, cuda, ...
    """
    import torch

    from smalti.apps.encodedfile import EncodedFile, write_encoded
    from smalti.generate.generator import Generator
    from smalti.images.contact_sheets import grid
    from smalti.images.masks import grey_out

    if num < 1:
        raise SmaltiError(f"--num must be at least 1, not {num}")
    if bool(known) != bool(mask):
        raise SmaltiError("completion needs both --known IMAGE and --mask (left-half, box, ..., or a PNG)")
    generator = Generator.from_pretrained(run, tokenizer=tokenizer or None, device=device)
    prompts = _prompts(generator, num, text, label)
    image, kept = _completion(generator, known, mask)
    count = 1 if isinstance(prompts, list) else num
    rules: dict[str, Any] = {"temperature": temperature, "top_k": top_k or None, "top_p": top_p, "guidance": guidance}
    rules |= {"known": image, "mask": kept, "steps": rounds or None}
    codes = generator.sample(prompts, count, seed=seed, progress=True, **rules)
    shown = images = generator.tokenizer.decode(codes).cpu()
    if image is not None:
        shown = torch.cat([image[None], grey_out(image, kept)[None], images])
    with atomic_path(out) as temporary:
        grid(shown, columns=min(len(shown), 8), zoom=2).save(temporary, "PNG")
    height, width = images.shape[-2:]
    target = Path(out).with_suffix(".npz")
    file = EncodedFile(
        kind="codes",
        names=[f"{index:04d}.png" for index in range(num)],
        values=list(codes.cpu()),
        sizes=[(height, width)] * num,
        model_hash=generator.tokenizer.source_hash,
        codebook_size=generator.model.config.codebook_size,
    )
    write_encoded(target, file)
    return {
        "written": [out, str(target)],
        "text": text or "",
        "labels": list(dict.fromkeys(prompts)) if isinstance(prompts, list) else [label] if label else [],
    }


def _prompts(generator: Any, num: int, text: str | None, label: str | None) -> str | list[str] | None:
    """The prompt of all images, or one for each."""
    config = generator.model.config
    if text is not None and config.text is None:
        raise SmaltiError(f"this prior takes no text; {'give --label' if config.labels else 'leave --text out'}")
    if label is not None and not config.labels:
        raise SmaltiError(f"this prior takes no label; {'give --text' if config.text else 'leave --label out'}")
    if config.labels and label is None:
        return [config.labels[index * len(config.labels) // num % len(config.labels)] for index in range(num)]
    return text if text is not None else label


def _completion(generator: Any, known: str, mask: str) -> tuple[Any, Any]:
    """The image (C, H, W) to complete and what is kept of it (H, W); nothing where nothing is known."""
    if not known:
        return None, None
    import torch

    from smalti.images.masks import read_mask
    from smalti.images.pixels import to_float
    from smalti.images.reading import fit, read_image

    wanted = generator.tokenizer.preprocessing
    pixels = fit(read_image(Path(known), wanted.channels), wanted.image_size)
    return to_float(torch.from_numpy(pixels)[None])[0], read_mask(mask, wanted.image_size)
