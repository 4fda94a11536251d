"""The verb `sample`: new images from a prior or from an autoencoder's p(z), or the rest of an image partly kept."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

from smalti.apps.outfiles import new_file
from smalti.apps.runs import what_is
from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.files import atomic_path


class PriorOptions(TypedDict, total=False):
    """What only a prior can be told.

    Attributes:
        text: the caption, for a prior with text; without it, the samples are unconditional.
        label: the class, for a prior with classes; without it, all of them in turn.
        known: an image to complete, as of --like; its centre square is resized to the prior's image size.
        mask: what is kept of it: left-half, right-half, top-half, bottom-half, box, frame, or a PNG (white is kept).
        tokenizer: where the prior's tokenizer is now; by default where the prior says.
        top_k: sample from this number of the most likely codes only; by default, or 0, from all.
        top_p: sample from the smallest set of codes with this probability only; by default 1, all.
        guidance: classifier-free; 1, the default, is none, 2 to 4 follows the text or label more and varies less.
        rounds: of a masked prior (maskgit).
    """

    text: str | None
    label: str | None
    known: str | None
    mask: str | None
    tokenizer: str | None
    top_k: int | None
    top_p: float | None
    guidance: float | None
    rounds: int | None


def sample(
    run: str,
    *,
    num: int = 16,
    out: str = "sample.png",
    seed: int = 0,
    temperature: float = 1.0,
    like: str | None = None,
    force: bool = False,
    device: str = "cpu",
    **prior: Unpack[PriorOptions],
) -> dict[str, Any]:
    """Sample new images from a prior or from an autoencoder's p(z), or complete one: a grid, and a file of the codes.

    Args:
        run: the folder of a trained prior, a bundled name (emoji), or an autoencoder with a p(z): a vae, or a discrete
            one, whose codes at random from a uniform p(z) show what a prior is for.
        num: how many images.
        out: the PNG; the codes, where there are any, go into an npz file of the same name.
        seed: of the random numbers.
        temperature: 0 is greedy: the most likely codes, or the mean of p(z), whose standard deviation it scales.
        like: of an autoencoder: an image (its centre square, resized; or emoji:12, of the test split of a data set), to
            sample around it from q(z|x).
        force: overwrite the files.
        device: cpu, cuda, ...
        **prior: of a prior.
    """
    from smalti.pretrained import find_folder

    for path in (out, Path(out).with_suffix(".npz")):
        new_file(path, force, *((".png",) if path == out else ()))
    if num < 1:
        raise SmaltiError(f"--num must be at least 1, not {num}")
    if what_is(str(find_folder(run, "prior"))) == "prior":
        effective(False, "on a prior", like=(like, None))
        return _from_prior(run, num, out, seed, temperature, device, prior)
    effective(False, "on an autoencoder", **{name: (value, None) for name, value in prior.items()})
    return _from_latents(run, num, out, seed, temperature, device, like)


def _from_latents(
    run: str, num: int, out: str, seed: int, temperature: float, device: str, like: str | None
) -> dict[str, Any]:
    """Samples from p(z), or around an image, after the image."""
    import torch

    from smalti.apps.imagefiles import fitted
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run, device=device)
    image = None if like is None else fitted([like], model.config.preprocessing)
    found = model.sample_latents(num, like=image, seed=seed, temperature=temperature)
    images = model.decode_latents(found.latents, found.size).cpu()
    _write_sheet(out, images if image is None else torch.cat([image, images]))
    if found.codes is None:
        return {"written": [out]}
    size = model.codes_bottleneck.codebook_size
    return {"written": [out, _write_codes(out, found.codes, found.size, model.source_hash, size)]}


def _from_prior(
    run: str, num: int, out: str, seed: int, temperature: float, device: str, options: PriorOptions
) -> dict[str, Any]:
    """Samples of a prior, after the image that they complete."""
    import torch

    from smalti.apps.output import bar
    from smalti.generate.generator import Generator
    from smalti.images.masks import grey_out

    text, label = options.get("text"), options.get("label")
    known, mask = options.get("known"), options.get("mask")
    if bool(known) != bool(mask):
        raise SmaltiError("completion needs both --known IMAGE and --mask (left-half, box, ..., or a PNG)")
    generator = Generator.from_pretrained(run, tokenizer=options.get("tokenizer") or None, device=device)
    prompts = _prompts(generator, num, text, label)
    image, kept = _completion(generator, known, mask)
    count = 1 if isinstance(prompts, list) else num
    guidance = options.get("guidance")
    rules: dict[str, Any] = {"temperature": temperature, "guidance": 1.0 if guidance is None else guidance}
    rules |= {"top_k": options.get("top_k") or None, "top_p": options.get("top_p")}
    rules |= {"steps": options.get("rounds") or None}
    if image is not None:
        rules["known"], rules["mask"] = generator.kept(image, kept)
    with bar("sampling") as progress:
        codes = generator.sample(prompts, count, seed=seed, progress=progress, **rules)
    images = generator.tokenizer.decode(codes).cpu()
    shown = images if image is None else torch.cat([image[None], grey_out(image, kept)[None], images])
    _write_sheet(out, shown)
    tokenizer, size = generator.tokenizer, (images.shape[2], images.shape[3])
    return {
        "written": [out, _write_codes(out, codes, size, tokenizer.source_hash, generator.model.config.codebook_size)],
        "text": text or "",
        "labels": list(dict.fromkeys(prompts)) if isinstance(prompts, list) else [label] if label else [],
    }


def _write_sheet(out: str, images: Any) -> None:
    from smalti.images.contact_sheets import grid

    with atomic_path(out) as temporary:
        grid(images, columns=min(len(images), 8), zoom=2).save(temporary, "PNG")


def _write_codes(out: str, codes: Any, size: tuple[int, int], model_hash: str, codebook_size: int) -> str:
    """The codes (B, *grid) in an npz file beside the picture; its name."""
    from smalti.apps.encodedfile import write_encoded
    from smalti.apps.encodedrecord import EncodedFile

    target = Path(out).with_suffix(".npz")
    file = EncodedFile(
        kind="codes",
        names=[f"{index:04d}.png" for index in range(len(codes))],
        values=list(codes.cpu()),
        sizes=[size] * len(codes),
        model_hash=model_hash,
        codebook_size=codebook_size,
    )
    write_encoded(target, file)
    return str(target)


def _prompts(generator: Any, num: int, text: str | None, label: str | None) -> str | list[str] | None:
    """The prompt of all images, or one for each."""
    prompt, labels = generator.prompt(text, label), generator.model.config.labels
    if labels and prompt is None:
        return [labels[index * len(labels) // num % len(labels)] for index in range(num)]
    return prompt


def _completion(generator: Any, known: str | None, mask: str | None) -> tuple[Any, Any]:
    """The image (C, H, W) to complete and what is kept of it (H, W); nothing where nothing is known."""
    if not known or not mask:
        return None, None
    from smalti.apps.imagefiles import fitted
    from smalti.images.masks import read_mask

    wanted = generator.tokenizer.preprocessing
    return fitted([known], wanted)[0], read_mask(mask, wanted.size)
