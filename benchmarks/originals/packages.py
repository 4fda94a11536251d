"""diffusers, transformers, and DALL-E."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import saved
from .original import Original, best_less_second, by_direction, by_distance, signed, unsigned


def save_pretrained(original: Original, _: dict[str, Tensor], folder: Path) -> None:
    network: Any = original.network
    network.save_pretrained(folder)


def diffusers_vq(old_names: bool = False, **config: Any) -> Original:
    from diffusers import VQModel

    network: Any = VQModel(**config)
    settings = {
        "_class_name": "VQModel",
        "_diffusers_version": version("diffusers"),
        **json.loads(network.to_json_string()),
    }

    def features(images: Tensor) -> Tensor:
        return network.encode(signed(images)).latents

    def codes(images: Tensor) -> Tensor:
        latents = features(images)
        indices = network.quantize(latents)[2][2]
        return indices.view(len(images), *latents.shape[-2:])

    def pixels(chosen: Tensor) -> Tensor:
        shape = (*chosen.shape, network.quantize.vq_embed_dim)
        if network.config.lookup_from_codebook:
            return unsigned(network.decode(chosen, force_not_quantize=True, shape=shape).sample)
        latents = network.quantize.get_codebook_entry(chosen.flatten(), shape)
        return unsigned(network.decode(latents, force_not_quantize=True).sample)

    def name(key: str) -> str:
        if old_names:
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                key = key.replace(f".{new}.", f".{old}.")
        return key

    return Original(
        f"diffusers {version('diffusers')}, VQModel", network, codes, pixels, features,
        gap=by_distance(network.quantize.embedding),
        settings=settings, name=name, codebook="quantize.embedding.weight",
        write=saved("diffusion_pytorch_model.bin") if old_names else save_pretrained,
    )  # fmt: skip


def diffusers(_: Path | None) -> Original:
    return diffusers_vq(
        block_out_channels=(32, 64, 96), layers_per_block=1, norm_num_groups=16, latent_channels=24, vq_embed_dim=8,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        num_vq_embeddings=96, sample_size=32,
    )  # fmt: skip


def amused(_: Path | None) -> Original:
    return diffusers_vq(
        block_out_channels=(32, 64, 64), layers_per_block=2, latent_channels=16, vq_embed_dim=16,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, num_vq_embeddings=128,
        mid_block_add_attention=False, lookup_from_codebook=True, force_upcast=True, sample_size=32,
    )  # fmt: skip


def vqdiffusion(_: Path | None) -> Original:
    return diffusers_vq(
        old_names=True,
        block_out_channels=(32, 32, 64), layers_per_block=2, latent_channels=16, vq_embed_dim=16,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
        num_vq_embeddings=128, sample_size=32,
    )  # fmt: skip


def in_vqmodel(name: str) -> str:
    return f"model.vqmodel.{name}"


def transformers_settings(network: Any, architecture: str, kind: str) -> dict[str, Any]:
    vq_config = json.loads(network.config.to_json_string(use_diff=False))
    return {"architectures": [architecture], "model_type": kind, "vq_config": vq_config}


def transformers_label(kind: str) -> str:
    return f"transformers {version('transformers')}, {kind}"


def encoded(network: Any, images: Tensor) -> Tensor:
    return network.quant_conv(network.encoder(signed(images)))


def janus(_: Path | None) -> Original:
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    network: Any = JanusVQVAE(
        JanusVQVAEConfig(
            base_channels=32, channel_multiplier=[1, 2, 2], num_res_blocks=1, latent_channels=24, embed_dim=8,
            num_embeddings=128, num_patches=8, projection_dim=32, image_token_embed_dim=32,
        )
    )  # fmt: skip

    def codes(images: Tensor) -> Tensor:
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        return network.encode(signed(images)).image_tokens.view(len(images), height, width)

    def pixels(chosen: Tensor) -> Tensor:
        network.quantize.quant_state_dims = list(chosen.shape[1:])  # a square of num_patches otherwise
        return unsigned(network.decode(chosen.flatten(1)))

    return Original(
        transformers_label("JanusVQVAE"), network, codes, pixels, lambda images: encoded(network, images),
        gap=by_direction(network.quantize.embedding),
        settings=transformers_settings(network, "JanusForConditionalGeneration", "janus"), name=in_vqmodel,
        extras={"lm_head.weight": [8, 4], "model.language_model.embed_tokens.weight": [8, 4],
                "model.generation_embeddings.weight": [128, 8], "model.vision_model.post_layernorm.weight": [4]},
        codebook="quantize.embedding.weight", unit=True,
    )  # fmt: skip


def chameleon(_: Path | None) -> Original:
    from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

    network: Any = ChameleonVQVAE(
        ChameleonVQVAEConfig(
            base_channels=32, channel_multiplier=[1, 1, 2], num_res_blocks=2, latent_channels=16, embed_dim=16,
            num_embeddings=128, resolution=64,
        )
    )  # fmt: skip

    def codes(images: Tensor) -> Tensor:
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        return network.encode(signed(images)).image_tokens.view(len(images), height, width)

    return Original(
        transformers_label("ChameleonVQVAE"), network, codes, None, lambda images: encoded(network, images),
        gap=by_distance(network.quantize.embedding),
        settings=transformers_settings(network, "ChameleonForConditionalGeneration", "chameleon"), name=in_vqmodel,
        extras={"lm_head.weight": [8, 4], "model.embed_tokens.weight": [8, 4], "model.norm.weight": [4]},
        codebook="quantize.embedding.weight",
    )  # fmt: skip


def whole_modules(original: Original, _: dict[str, Tensor], folder: Path) -> None:
    network: Any = original.network
    for name in ("encoder", "decoder"):
        torch.save(network[name], folder / f"{name}.pkl")


def openai(_: Path | None) -> Original:
    import dall_e

    network = nn.ModuleDict(
        {
            "encoder": dall_e.Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512),
            "decoder": dall_e.Decoder(n_init=16, n_hid=64, n_blk_per_group=1, vocab_size=512),
        }
    )

    def features(images: Tensor) -> Tensor:
        return network["encoder"](dall_e.map_pixels(images))

    def pixels(chosen: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(chosen, 512).permute(0, 3, 1, 2).float()
        return (torch.sigmoid(network["decoder"](one_hot)[:, :3]) - 0.1) / 0.8  # unmap_pixels, not clamped

    return Original(
        f"DALL-E {version('DALL-E')}, dall_e.Encoder and dall_e.Decoder", network,
        lambda images: features(images).argmax(1), pixels, features, best_less_second,
        write=whole_modules,
        # without norms: louder, or every image looks like the next
        scales={"encoder.blocks.input.w": 6.0, "encoder.blocks.output.conv.w": 3.0,
                "decoder.blocks.input.w": 30.0, "decoder.blocks.output.conv.w": 4.0},
    )  # fmt: skip
