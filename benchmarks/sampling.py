"""Drawing codes: the cached steppers against the naive sampler of the same network, and the transformer against peers.

    make bench-sampling        # the environment of the peers, then: python benchmarks/sampling.py

The naive sampler runs the whole network for every position, as the peers do; its time is that of one pass, which is the
same at every position, times the number of positions. Before timing, both sides must draw the same codes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from common import compare, save

from smalti.priors.family import PRIORS, CausalPrior, Transformer
from smalti.priors.sampling import draw

K = 512
CONVOLUTIONAL = {
    "pixelcnn": {"channels": 128, "layers": 10},
    "masked_pixelcnn": {"channels": 128, "layers": 15, "code_dim": 128},
    "pixelsnail": {"channels": 64, "blocks": 8, "residuals": 2},
}


def naive(prior: CausalPrior, batch: int, generator: torch.Generator) -> torch.Tensor:
    codes = torch.zeros(batch, *prior.grid, dtype=torch.int64)
    with torch.inference_mode():
        for row in range(prior.grid[0]):
            for column in range(prior.grid[1]):
                codes[:, row, column] = draw(prior.logits(codes)[:, row, column], generator)
    return codes


def one_pass(prior: CausalPrior, batch: int) -> Callable[[], float]:
    """Codes per second of the naive sampler."""
    codes = torch.randint(0, K, (batch, *prior.grid))

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            draw(prior.logits(codes)[:, -1, -1])
        return batch / (time.perf_counter() - start)

    return run


def whole(prior: CausalPrior, batch: int) -> Callable[[], float]:
    """Codes per second of the cached sampler, over whole grids."""

    def run() -> float:
        start = time.perf_counter()
        prior.sample(batch)
        return batch * prior.num_codes / (time.perf_counter() - start)

    return run


def make(kind: str, side: int, **options: int) -> CausalPrior:
    torch.manual_seed(0)
    prior = PRIORS[kind](codebook_size=K, grid=(side, side), **options)
    assert isinstance(prior, CausalPrior)
    return prior.eval()


def check_equal(prior: CausalPrior) -> None:
    cached = prior.sample(2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(cached, naive(prior, 2, torch.Generator().manual_seed(1))), "the two sides drew other codes"


def convolutional(rounds: int) -> list[dict]:
    results = []
    for kind, options in CONVOLUTIONAL.items():
        check_equal(make(kind, 8, **options))
        for side, batch in ((8, 16), (32, 1), (32, 16)):
            prior = make(kind, side, **options)
            size = sum(parameter.numel() for parameter in prior.parameters()) / 1e6
            sides = {"cached": whole(prior, batch), "naive": one_pass(prior, batch)}
            name = f"{kind} ({size:.1f} M), {side}x{side}, batch {batch}"
            results.append(compare(name, sides, "cached", rounds))
    return results


# ------------------------------------------------------------------ the transformer and its peers

LAYERS, WIDTH, HEADS, VOCABULARY, SIDE = 8, 512, 8, 1024, 16


def gpt2(prior: Transformer) -> torch.nn.Module:
    """GPT-2 of `transformers` with the same weights, so that both must choose the same codes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY + 1, n_positions=SIDE * SIDE + 1, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        tie_word_embeddings=False, bos_token_id=VOCABULARY, eos_token_id=None, pad_token_id=VOCABULARY,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.copy_(torch.cat([prior.codes.weight, prior.prefix.start.weight]))
        model.transformer.wpe.weight[: SIDE * SIDE].copy_(prior.positions())
        model.lm_head.weight[:VOCABULARY].copy_(prior.head.weight)
        model.lm_head.weight[VOCABULARY:].zero_()
        pairs = [(model.transformer.ln_f, prior.norm)]
        for theirs, ours in zip(model.transformer.h, prior.blocks, strict=True):
            pairs += [(theirs.ln_1, ours.attention_norm), (theirs.ln_2, ours.mlp_norm)]
            linears = [(theirs.attn.c_attn, ours.qkv), (theirs.attn.c_proj, ours.out)]
            for conv, linear in [*linears, (theirs.mlp.c_fc, ours.up), (theirs.mlp.c_proj, ours.down)]:
                conv.weight.copy_(linear.weight.T)
                conv.bias.copy_(linear.bias)
        for theirs, ours in pairs:
            theirs.load_state_dict(ours.state_dict())
    return model


def dalle_pytorch() -> torch.nn.Module:
    """DALLE-pytorch 1.6.6; what it imports for other purposes is replaced by stand-ins."""
    for name in ("torchvision", "omegaconf", "taming", "taming.models", "taming.models.vqgan", "pytorch_lightning",
                 "dall_e", "youtokentome", "pkg_resources", "requests", "yaml"):  # fmt: skip
        sys.modules.setdefault(name, MagicMock(spec=ModuleType))
        sys.modules[name].__dict__.update(
            {"OmegaConf": None, "VQModel": None, "GumbelVQ": None, "get_distribution": MagicMock()}
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
    torch.nn.init.zeros_(prior.head.bias)
    sides: dict[str, Callable[[], float]] = {"smalti": whole(prior, batch)}
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
    return compare(name, sides, "smalti", rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["convolutional", "transformer"], default=None)
    parser.add_argument("--out", default="benchmarks/results/sampling.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    if arguments.only != "transformer":
        results += convolutional(arguments.rounds)
    if arguments.only != "convolutional":
        results += [transformer(arguments.rounds, batch) for batch in (16, 1)]
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
