"""taming-transformers, and what its descendants have of it."""

import contextlib
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import ckpt
from .original import Module, Original, best_less_second, by_distance, no_loss, signed, stubs, unsigned


def taming_settings(target: str, params: dict[str, Any]) -> dict[str, Any]:
    loss = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": {"disc_start": 250001}}
    return {"model": {"base_learning_rate": 4.5e-06, "target": target, "params": {**params, "lossconfig": loss}}}


def in_state_dict(name: str) -> str:
    return f"state_dict.{name}"


LOSS = {
    "state_dict.loss.discriminator.main.0.weight": [4, 3, 4, 4],
    "state_dict.loss.discriminator.main.0.bias": [4],
    "state_dict.loss.perceptual_loss.lin0.model.1.weight": [1, 8, 1, 1],
}


def vq(network: Any, name: str, settings: dict[str, Any], **options: Any) -> Original:
    """What VQModel of taming and of its descendants has: encoder, quant_conv, quantize, post_quant_conv, decoder."""

    def features(images: Tensor) -> Tensor:
        return network.quant_conv(network.encoder(signed(images)))

    def codes(images: Tensor) -> Tensor:
        latents = features(images)
        _, _, (_, _, indices) = network.quantize(latents)
        return indices.view(len(images), *latents.shape[-2:])

    def pixels(chosen: Tensor) -> Tensor:
        batch, height, width = chosen.shape
        table = network.quantize.embedding.weight
        latents = network.quantize.get_codebook_entry(chosen.flatten(), (batch, height, width, table.shape[1]))
        return unsigned(network.decode(latents))

    parts = {
        "codes": codes, "pixels": pixels, "features": features, "settings": settings, "name": in_state_dict,
        "extras": LOSS, "codebook": "quantize.embedding.weight", "write": ckpt, **options,
    }  # fmt: skip
    if "gap" not in parts:
        parts["gap"] = by_distance(network.quantize.embedding)
    return Original(name, network, **parts)


def taming_module() -> Any:
    with (
        stubs({"pytorch_lightning": {"LightningModule": Module}, "taming.main": {"instantiate_from_config": no_loss}}),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        import taming.models.vqgan as vqgan
    return vqgan


def taming(_: Path | None) -> Original:
    ddconfig = {
        "double_z": False, "z_channels": 24, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [8], "dropout": 0.0,
    }  # fmt: skip
    params = {"embed_dim": 16, "n_embed": 128, "ddconfig": ddconfig}
    with contextlib.redirect_stdout(io.StringIO()):
        network = taming_module().VQModel(**params, lossconfig={})
    label = f"taming-transformers-rom1504 {version('taming-transformers-rom1504')}, taming.models.vqgan.VQModel"
    return vq(network, label, taming_settings("taming.models.vqgan.VQModel", params))


def taming_f16(width: int = 128) -> Original:
    """The published size, f16 and K = 16,384, with random weights; for the comparison of speed."""
    ddconfig = {
        "double_z": False, "z_channels": 256, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": width,
        "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "attn_resolutions": [16], "dropout": 0.0,
    }  # fmt: skip
    params = {"embed_dim": 256, "n_embed": 16384, "ddconfig": ddconfig}
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        network = taming_module().VQModel(**params, lossconfig={})
    nn.init.normal_(network.quantize.embedding.weight)
    return vq(network.eval(), "taming", taming_settings("taming.models.vqgan.VQModel", params))


def taming_gumbel(_: Path | None) -> Original:
    ddconfig = {
        "double_z": False, "z_channels": 16, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2, 3], "num_res_blocks": 1, "attn_resolutions": [32], "dropout": 0.0,
    }  # fmt: skip
    params = {"kl_weight": 1e-8, "embed_dim": 16, "n_embed": 96, "ddconfig": ddconfig}
    with contextlib.redirect_stdout(io.StringIO()):
        network = taming_module().GumbelVQ(**params, lossconfig={}, temperature_scheduler_config={})
    label = f"taming-transformers-rom1504 {version('taming-transformers-rom1504')}, taming.models.vqgan.GumbelVQ"

    proj = network.quantize.proj

    def features(images: Tensor) -> Tensor:
        return network.encode_to_prequant(signed(images))

    def pixels(chosen: Tensor) -> Tensor:
        return unsigned(network.decode(network.quantize.embed(chosen).movedim(-1, 1)))

    return vq(
        network, label, taming_settings("taming.models.vqgan.GumbelVQ", params),
        features=features, pixels=pixels, codes=lambda images: proj(features(images)).argmax(1),
        gap=lambda z: best_less_second(nn.functional.linear(z, proj.weight.double().flatten(1), proj.bias.double())),
        codebook="quantize.embed.weight",
    )  # fmt: skip
