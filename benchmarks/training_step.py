"""A training step of a dVAE: DALLE-pytorch's network and estimator, as it is and in smalti's hands; and our networks.

    make bench-training_step        # the environment of the peers, then: python benchmarks/training_step.py

Both sides start from the same weights and take the same images: soft Gumbel-Softmax at temperature 0.9, mean squared
error, Adam. Ours is the same layers as smalti's convolutions, which take the ReLU before them with them, and
`Categorical` between them; it is channels-last, with a fused optimiser. All sides keep freed memory, as the command
line does (`smalti.apps.process`). Before timing, the gradients of both are compared on the same noise. bf16 is measured
where the processor has bf16 arithmetic; elsewhere it is slower than fp32 and the rows are left out.

Our own networks run with smalti's convolutions and, everything else the same, with PyTorch's.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from common import compare, save
from sampling import dalle_pytorch
from torch import Tensor, nn

from smalti.apps.process import keep_freed_memory
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import Categorical
from smalti.models.config import AutoencoderConfig
from smalti.ops import convolution
from smalti.ops.convolution import Conv2d, ConvTranspose2d
from smalti.ops.gumbel import gumbel_noise_of
from smalti.schedules import Schedule

K, D, WIDTH, TEMPERATURE, STEPS = 1024, 64, 64, 0.9, 3


def peer_network(side: int, codes: int = K) -> nn.Module:
    dalle_pytorch()  # its stand-ins for what it does not need
    from dalle_pytorch import DiscreteVAE

    return DiscreteVAE(
        image_size=side, num_layers=2, num_tokens=codes, codebook_dim=D, num_resnet_blocks=1, hidden_dim=WIDTH,
        temperature=TEMPERATURE,
    ).train()  # fmt: skip


def convolutions_of(layers: Iterable[nn.Module]) -> nn.Sequential:
    """The same layers with smalti's convolutions, in which ReLUs before them disappear."""
    found: list[nn.Module] = []
    flat = [part for layer in layers for part in (layer if isinstance(layer, nn.Sequential) else [layer])]
    for before, layer in zip([None, *flat], flat, strict=False):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if isinstance(before, nn.ReLU):
                found.pop()
            kind = Conv2d if isinstance(layer, nn.Conv2d) else ConvTranspose2d
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
            found.append(kind(*sizes, rectified=isinstance(before, nn.ReLU)))
            found[-1].load_state_dict(layer.state_dict())
        else:
            if hasattr(layer, "net"):  # a residual block
                layer.net = convolutions_of(layer.net)
            found.append(layer)
    return nn.Sequential(*found)


class Ours(nn.Module):
    """The same network with smalti's convolutions and bottleneck."""

    def __init__(self, peer: nn.Module):
        super().__init__()
        *layers, last = copy.deepcopy(list(peer.encoder))
        self.encoder, self.decoder = convolutions_of(layers), convolutions_of(copy.deepcopy(peer.decoder))
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
    noise = gumbel_noise_of(rows, K, seed, images)
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
    first, other = ours.encoder[0].weight.grad, peer.encoder[0][0].weight.grad
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


def ours_alone(name: str, networks: dict, side: int, batch: int, rounds: int) -> dict:
    """A VQ-VAE of ours with its own convolutions and with PyTorch's."""
    torch.manual_seed(0)
    bottleneck = {"kind": "vector_quantizer", "codebook_size": 512, "code_dim": 16}
    model = Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck)).train()
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    plain = mock.patch.object(convolution, "kernels_for", lambda *_: None)

    def loss_of(model: nn.Module) -> Tensor:
        out = model(images)
        model.bottleneck.update()
        return model.likelihood.nll(out.parameters, images).mean() + out.bottleneck.penalties["commitment"]

    with torch.no_grad():
        own = model.encoder(images)
        with plain:
            torch.testing.assert_close(own, model.encoder(images), rtol=1e-4, atol=1e-4)
    copied = copy.deepcopy(model)
    step = stepper(copied, images, loss_of, fused=True, bf16=False)

    def with_pytorchs() -> float:
        with plain:
            return step()

    sides = {"smalti": stepper(model, images, loss_of, fused=True, bf16=False), "PyTorch's convolutions": with_pytorchs}
    return compare(f"step of our {name} networks, {side}x{side}, batch {batch}", sides, "smalti", rounds, "images/s")


OURS = (
    ("residual, 64 channels", {"kind": "residual"}, 32, 32),
    ("residual, 32 channels", {"kind": "residual", "width": 32, "depth": 1}, 64, 16),
    ("residual, 128 channels, patch 2", {"kind": "residual", "width": 128, "patch": 2}, 64, 8),
    ("strided", {"kind": "strided"}, 32, 32),
)


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
    results += [ours_alone(*network, arguments.rounds) for network in OURS]
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
