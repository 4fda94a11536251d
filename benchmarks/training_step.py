"""A training step of a dVAE: DALLE-pytorch's network and estimator, as it is and in smalti's hands; and our networks.

    make bench-training_step        # the environment of the peers, then: python benchmarks/training_step.py

Both sides start from the same weights and take the same images: soft Gumbel-Softmax at temperature 0.9, mean squared
error, Adam. Ours is the same layers with `Categorical` between them, channels-last, with a fused optimiser. All sides
keep freed memory, as the command line does (`smalti.apps.process`). Before timing, the gradients of both are compared
on the same noise. bf16 is measured where the processor has bf16 arithmetic; elsewhere it is slower than fp32 and the
rows are left out.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import compare, save
from sampling import dalle_pytorch
from torch import Tensor, nn

from smalti.apps.process import keep_freed_memory
from smalti.models.bottlenecks import Categorical
from smalti.ops.gumbel_noise import seeded_gumbel
from smalti.schedules import Schedule

K, D, WIDTH, TEMPERATURE, STEPS = 1024, 64, 64, 0.9, 3


def peer_network(side: int, codes: int = K) -> nn.Module:
    dalle_pytorch()  # its stand-ins for what it does not need
    from dalle_pytorch import DiscreteVAE

    return DiscreteVAE(
        image_size=side, num_layers=2, num_tokens=codes, codebook_dim=D, num_resnet_blocks=1, hidden_dim=WIDTH,
        temperature=TEMPERATURE,
    ).train()  # fmt: skip


class Ours(nn.Module):
    """The same network with smalti's bottleneck."""

    def __init__(self, peer: nn.Module):
        super().__init__()
        *layers, last = copy.deepcopy(list(peer.encoder))
        self.encoder, self.decoder = nn.Sequential(*layers), copy.deepcopy(peer.decoder)
        self.bottleneck = Categorical(
            codebook_size=peer.num_tokens,
            code_dim=D,
            logits="convolution",
            in_channels=WIDTH,
            temperature=Schedule(end=TEMPERATURE),
        )
        assert self.bottleneck.to_logits is not None and self.bottleneck.codebook is not None
        self.bottleneck.to_logits.load_state_dict(last.state_dict())
        with torch.no_grad():
            self.bottleneck.codebook.table.copy_(peer.codebook.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        target = ((images - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        return F.mse_loss(self.decoder(self.bottleneck(self.encoder(target)).latents), target)


def check(peer: nn.Module, images: Tensor) -> None:
    """The same loss and the same gradient of the first layer, when the peer is given our noise."""
    ours, rows = Ours(peer), len(images) * (images.shape[-1] // 4) ** 2
    torch.manual_seed(5)
    seed = int(torch.randint(2**62, ()))  # as the bottleneck draws it
    torch.manual_seed(5)
    loss = ours(images)
    loss.backward()
    noise = seeded_gumbel(images.new_empty(rows, K), seed)
    shape = (len(images), images.shape[-1] // 4, images.shape[-1] // 4, K)

    def with_our_noise(logits: Tensor, tau: float, dim: int, hard: bool) -> Tensor:
        return ((logits + noise.view(shape).permute(0, 3, 1, 2)) / tau).softmax(dim)

    given, F.gumbel_softmax = F.gumbel_softmax, with_our_noise
    try:
        theirs = peer(images, return_loss=True)
        theirs.backward()
    finally:
        F.gumbel_softmax = given
    torch.testing.assert_close(loss, theirs, rtol=1e-4, atol=1e-5)
    first, other = ours.encoder[0][0].weight.grad, peer.encoder[0][0].weight.grad
    assert F.cosine_similarity(first.flatten(), other.flatten(), dim=0) > 0.9999
    peer.zero_grad()


def stepper(model: nn.Module, images: Tensor, loss_of: Callable[[nn.Module], Tensor], *, fused: bool, bf16: bool):
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(model)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return STEPS * len(images) / (time.perf_counter() - start)

    return run


def one(side: int, batch: int, rounds: int, compiled: bool) -> dict:
    torch.manual_seed(0)
    peer, images = peer_network(side), torch.rand(batch, 3, side, side)
    check(peer, images[:2])
    last = images.contiguous(memory_format=torch.channels_last)
    channels_last = copy.deepcopy(peer).to(memory_format=torch.channels_last)

    def theirs(model: nn.Module) -> Tensor:
        return model(images, return_loss=True)

    def theirs_last(model: nn.Module) -> Tensor:
        return model(last, return_loss=True)

    sides = {
        "smalti": stepper(Ours(peer), images, lambda model: model(images), fused=True, bf16=False),
        "DALLE-pytorch as shipped": stepper(copy.deepcopy(peer), images, theirs, fused=False, bf16=False),
        "DALLE-pytorch, channels-last": stepper(channels_last, images, theirs_last, fused=False, bf16=False),
    }
    if compiled:
        model = torch.compile(copy.deepcopy(channels_last))
        sides["DALLE-pytorch, torch.compile"] = stepper(model, images, theirs_last, fused=True, bf16=False)
    if torch.cpu._is_avx512_bf16_supported():
        sides["smalti, bf16"] = stepper(Ours(peer), images, lambda model: model(images), fused=True, bf16=True)
        sides["DALLE-pytorch, channels-last, bf16"] = stepper(
            copy.deepcopy(channels_last), images, theirs_last, fused=True, bf16=True
        )
    else:
        print("no bf16 arithmetic on this processor: no bf16 rows")
    return compare(f"dVAE step, {side}x{side}, batch {batch}", sides, "smalti", rounds, "images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="their network through torch.compile too"
    )
    parser.add_argument("--out", default="benchmarks/results/training_step.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    sizes = ((32, 32), (64, 16), (128, 4))
    results = [one(side, batch, arguments.rounds, arguments.compile and side == 64) for side, batch in sizes]
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
