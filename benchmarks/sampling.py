"""Sampling codes: what the cache gives, what the kernels give on top, what guidance costs; a transformer and its peers.

    make bench-sampling        # the environment of the peers, then: python benchmarks/sampling.py

The naive sampler runs the whole network for every code, as the peers do; its time is that of one pass, which is the
same at every position. "Without kernels" is the same cached sampling in PyTorch, in the same run. Before timing, all
sides must choose the same codes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from common import compare, save
from torch import nn

from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig
from smalti.priors.family import PRIORS, Transformer

K = 512
OURS, PLAIN, NAIVE = "smalti", "without kernels", "the whole network for every code"
Options = Mapping[str, int]
CONVOLUTIONAL: dict[str, Options] = {
    "pixelcnn": {"channels": 128, "layers": 10},
    "masked_pixelcnn": {"channels": 128, "layers": 15, "code_dim": 128},
    "pixelsnail": {"channels": 64, "blocks": 8, "residuals": 2},
}
GUIDED = {kind: CONVOLUTIONAL[kind] for kind in ("pixelcnn", "pixelsnail")}
CODING = GUIDED | {"transformer": {"width": 256, "layers": 6, "heads": 8}}


def randomized(network: nn.Module) -> None:
    """Weights far from their initialisation, where some are zero and all codes alike."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)


def make(kind: str, side: int, **options: int) -> Any:
    torch.manual_seed(0)
    prior = PRIORS[kind](codebook_size=K, grid=(side, side), **options)
    randomized(prior)
    return prior.eval()


def naive(prior: Any, batch: int) -> torch.Tensor:
    """The most likely code at every position, the whole network for each."""
    codes = torch.zeros(batch, *prior.grid, dtype=torch.int64)
    with torch.inference_mode():
        for row in range(prior.grid[0]):
            for column in range(prior.grid[1]):
                codes[:, row, column] = prior.logits(codes)[:, row, column].argmax(-1)
    return codes


def check_equal(prior: Any) -> None:
    wanted = naive(prior, 2)
    assert torch.equal(prior.sample(2, temperature=0.0), wanted), "the cached sampler chose other codes"
    assert torch.equal(plainly(lambda: prior.sample(2, temperature=0.0)), wanted), "without kernels: other codes"
    assert wanted.unique().numel() > 1, "all codes are alike"


def one_pass(prior: Any, batch: int) -> Callable[[], float]:
    """Codes per second of the naive sampler."""
    codes = torch.randint(0, K, (batch, *prior.grid))

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            prior.logits(codes)[:, -1, -1].softmax(-1).multinomial(1)
        return batch / (time.perf_counter() - start)

    return run


def whole(prior: Any, batch: int, **options: Any) -> Callable[[], float]:
    """Codes per second of the cached sampler, over whole grids."""

    def run() -> float:
        start = time.perf_counter()
        prior.sample(batch, **options)
        return batch * prior.num_codes / (time.perf_counter() - start)

    return run


def plainly(work: Callable[[], Any]) -> Any:
    """The work without native kernels."""
    with mock.patch.dict(os.environ, {"SMALTI_KERNELS": "off"}):
        return work()


def millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} M"


def convolutional(
    rounds: int,
    kinds: Mapping[str, Options] = CONVOLUTIONAL,
    sizes: Sequence[tuple[int, int]] = ((8, 16), (32, 1), (32, 16)),
) -> list[dict]:
    """What the cache and the kernels give, at (side of the grid, batch)."""
    results = []
    for kind, options in kinds.items():
        check_equal(make(kind, sizes[0][0], **options))
        for side, batch in sizes:
            prior = make(kind, side, **options)
            ours = whole(prior, batch)
            sides = {OURS: ours, PLAIN: lambda ours=ours: plainly(ours), NAIVE: one_pass(prior, batch)}
            parts = {"the cache": (PLAIN, NAIVE), "the kernels": (OURS, PLAIN)}
            name = f"{kind} ({millions(prior)}), {side}x{side}, batch {batch}"
            results.append(compare(name, sides, OURS, rounds, parts=parts))
    return results


def guided(
    rounds: int, kinds: Mapping[str, Options] = GUIDED, sides: Sequence[int] = (8, 32), batch: int = 16
) -> list[dict]:
    """What guidance costs: twice the work, so about half of the rate."""
    results = []
    for kind, options in kinds.items():
        for side in sides:
            prior = make(kind, side, num_conditions=4, **options)
            classes = torch.arange(batch) % 4
            works = {
                "unguided": whole(prior, batch, condition=classes),
                "guidance 2": whole(prior, batch, condition=classes, guidance=2.0),
            }
            name = f"{kind} ({millions(prior)}) with classes, {side}x{side}, batch {batch}"
            results.append(compare(name, works, "unguided", rounds))
    return results


def coding(rounds: int, kinds: Mapping[str, Options] = CODING, side: int = 8, images: int = 64) -> list[dict]:
    """Decoding files whose codes were coded under a prior; the tokenizer is tiny, so that the prior is timed."""
    try:
        from smalti.codec import Codec
    except ImportError as error:
        print(f"the codec needs {error.name}: `make peers`")
        return []
    results = []
    for kind, options in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            codec = Codec(*models(kind, Path(folder), side, options))
            data = codec.compress(list(torch.rand(images, 3, 4 * side, 4 * side)))

        def decode(codec: Any = codec, data: bytes = data) -> float:
            start = time.perf_counter()
            codec.decompress(data)
            return images * side * side / (time.perf_counter() - start)

        assert codec.decompress(data) == plainly(lambda codec=codec, data=data: codec.decompress(data))
        sides = {OURS: decode, PLAIN: lambda decode=decode: plainly(decode)}
        name = f"decoding {images} images of {side}x{side} codes, {kind} ({millions(codec.prior)})"
        results.append(compare(name, sides, OURS, rounds))
    return results


def models(kind: str, folder: Path, side: int, options: Options) -> tuple[Autoencoder, CodeModel]:
    """A tokenizer of stride 4 and a prior of its codes, both random."""
    config = AutoencoderConfig(
        networks={"kind": "residual", "width": 8, "depth": 1, "stride": 4},
        bottleneck={"kind": "vector_quantizer", "codebook_size": K, "code_dim": 4, "start": "random"},
        preprocessing=Preprocessing(image_size=4 * side),
    )
    torch.manual_seed(0)
    Autoencoder(config).eval().save_pretrained(folder / "tokenizer")
    tokenizer = Autoencoder.from_pretrained(folder / "tokenizer")
    prior = CodeModel(
        PriorConfig(
            prior={"kind": kind, **options},
            codebook_size=K,
            grid=(side, side),
            tokenizer=str(folder / "tokenizer"),
            tokenizer_hash=tokenizer.source_hash,
        )
    )
    randomized(prior)
    prior.save_pretrained(folder / "prior")
    return tokenizer, CodeModel.from_pretrained(folder / "prior")


# ------------------------------------------------------------------ the transformer and its peers

LAYERS, WIDTH, HEADS, VOCABULARY, SIDE = 8, 512, 8, 1024, 16


def gpt2(prior: Transformer) -> nn.Module:
    """GPT-2 of `transformers` with the same weights, so that both must choose the same codes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY + 1, n_positions=SIDE * SIDE + 1, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        tie_word_embeddings=False, bos_token_id=VOCABULARY, eos_token_id=None, pad_token_id=VOCABULARY,
    )  # fmt: skip
    model, ours = GPT2LMHeadModel(config).eval(), prior.state_dict()
    positions = ours["positions.row.weight"][:, None] + ours["positions.column.weight"]
    theirs = {
        "transformer.wte.weight": torch.cat([ours["codes.table.weight"], ours["prefix.start.weight"]]),
        "transformer.wpe.weight": nn.functional.pad(positions.flatten(0, 1), (0, 0, 0, 1)),
        "lm_head.weight": nn.functional.pad(ours["codes.head.weight"], (0, 0, 0, 1)),
        "transformer.ln_f.weight": ours["norm.weight"],
        "transformer.ln_f.bias": ours["norm.bias"],
    }
    names = {"ln_1": "attention_norm", "ln_2": "mlp_norm", "attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "up",
             "mlp.c_proj": "down"}  # fmt: skip
    for layer in range(LAYERS):
        for their_name, our_name in names.items():
            for kind in ("weight", "bias"):  # their linear layers hold the transposed matrix
                theirs[f"transformer.h.{layer}.{their_name}.{kind}"] = ours[f"blocks.{layer}.{our_name}.{kind}"].t()
    missing, unknown = model.load_state_dict(theirs, strict=False)
    assert not unknown and all(name.endswith((".attn.bias", ".masked_bias")) for name in missing), (missing, unknown)
    return model


def dalle_pytorch() -> torch.nn.Module:
    """DALLE-pytorch 1.6.6; what it imports for other purposes is replaced by stand-ins."""
    for name in ("torchvision", "omegaconf", "taming", "taming.models", "taming.models.vqgan", "pytorch_lightning",
                 "dall_e", "youtokentome", "pkg_resources", "yaml"):  # fmt: skip
        sys.modules.setdefault(name, mock.MagicMock(spec=ModuleType))
        sys.modules[name].__dict__.update(
            {"OmegaConf": None, "VQModel": None, "GumbelVQ": None, "get_distribution": mock.MagicMock()}
        )
    from dalle_pytorch import DALLE, DiscreteVAE

    vae = DiscreteVAE(image_size=SIDE * 4, num_layers=2, num_tokens=VOCABULARY, codebook_dim=8, hidden_dim=8)
    return DALLE(
        dim=WIDTH, vae=vae, num_text_tokens=256, text_seq_len=1, depth=LAYERS, heads=HEADS, dim_head=WIDTH // HEADS
    ).eval()


def transformer(rounds: int, batch: int) -> dict:
    torch.manual_seed(0)
    size = {"codebook_size": VOCABULARY, "grid": (SIDE, SIDE)}
    prior = Transformer(**size, width=WIDTH, layers=LAYERS, heads=HEADS).eval()
    nn.init.zeros_(prior.codes.head.bias)  # GPT-2 has none
    ours = whole(prior, batch)
    sides: dict[str, Callable[[], float]] = {OURS: ours, PLAIN: lambda: plainly(ours)}
    try:
        theirs = gpt2(prior)
    except ImportError:
        print("transformers is not installed: `make peers`")
    else:
        start = torch.full((batch, 1), VOCABULARY)
        more = {"max_new_tokens": SIDE * SIDE, "min_new_tokens": SIDE * SIDE, "use_cache": True, "top_k": 0}
        masked = {"attention_mask": torch.ones_like(start), "suppress_tokens": [VOCABULARY]}
        with torch.inference_mode():
            greedy = theirs.generate(start, do_sample=False, **more, **masked)[:, 1:]
        equal = (greedy == prior.sample(batch, temperature=0.0).flatten(1)).double().mean().item()
        print(f"greedy codes equal to GPT-2's: {100 * equal:.2f} %")
        assert equal > 0.99

        def generate() -> float:
            begin = time.perf_counter()
            with torch.inference_mode():
                theirs.generate(start, do_sample=True, **more, **masked)
            return batch * SIDE * SIDE / (time.perf_counter() - begin)

        sides["GPT-2 of transformers, cache"] = generate
    try:
        dalle = dalle_pytorch()
    except ImportError as error:
        print(f"DALLE-pytorch is not installed ({error}): `make peers`")
    else:

        def steps() -> float:
            """`generate_images` runs this once a code; here at 4 lengths, evenly spread."""
            begin = time.perf_counter()
            with torch.inference_mode():
                for length in range(SIDE * SIDE // 8, SIDE * SIDE, SIDE * SIDE // 4):
                    text, image = torch.ones(batch, 1, dtype=torch.int64), torch.randint(0, VOCABULARY, (batch, length))
                    dalle.forward_with_cond_scale(text, image, cond_scale=1.0, cache=None)
            return 4 * batch / (time.perf_counter() - begin)

        sides["DALLE-pytorch 1.6.6"] = steps
    name = f"transformer, {LAYERS} layers x {WIDTH}, {SIDE * SIDE} codes, batch {batch}"
    return compare(name, sides, OURS, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["convolutional", "guided", "coding", "transformer"], nargs="*", default=[])
    parser.add_argument("--out", default="benchmarks/results/sampling.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    works = {
        "convolutional": convolutional,
        "guided": guided,
        "coding": coding,
        "transformer": lambda rounds: [transformer(rounds, batch) for batch in (16, 1)],
    }
    for name in arguments.only or works:
        save(works[name](arguments.rounds), Path(arguments.out))


if __name__ == "__main__":
    main()
