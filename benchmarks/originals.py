"""Small random models made by the original projects, and what they answer: the other side of `smalti convert`.

Runs in the peers' environment (`make peers`), never in smalti's own; `benchmarks/interop.py` compares. What is not on
PyPI is read from `--sources DIR`; a format whose code is not there is left out, and that is said.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
MADE = "2026-11-28"
POSITIONS = 64  # pixels of a golden file
if __name__ == "__main__":
    del sys.path[0]  # this folder, whose kernels.py transformers would take for a package of that name
sys.path.append(str(ROOT / "tests/interop"))

import golden  # noqa: E402


@dataclass
class Original:
    """A model of another project: its module, the names of its file, and its answers."""

    original: str  # package version or repository@commit, and class
    network: nn.Module
    codes: Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] -> (B, h, w)
    pixels: Callable[[Tensor], Tensor] | None  # codes (B, h, w) -> images in [0, 1], not clamped
    features: Callable[[Tensor], Tensor]  # images -> what chooses the code: (B, D, h, w)
    gap: Callable[[Tensor], Tensor]  # features (M, D) -> (M,): how far each is from another code
    settings: dict[str, Any] = field(default_factory=dict)
    name: Callable[[str], str] = str  # of the module -> of the file
    extras: dict[str, list[int]] = field(default_factory=dict)  # in the file, of no use to an image
    codebook: str | None = None  # name in the module
    unit: bool = False  # rows of length 1
    write: Callable[["Original", dict[str, Tensor], Path], None] | None = None  # the file as it is published
    scales: dict[str, float] = field(default_factory=dict)  # of tensors of the file

    def fill(self) -> dict[str, float]:
        """Give the module the weights that its file's names determine; the scales of the codebook."""
        shapes = {key: list(tensor.shape) for key, tensor in self.network.state_dict().items()}
        scales = dict(self.scales)
        if self.codebook:
            scales[self.name(self.codebook)] = 0.0 if self.unit else 1.0
        for _ in range(2):  # with the features that the first pass gives, the codebook has their length
            tensors = {
                key: torch.from_numpy(golden.filled(self.name(key), shape, scales)) for key, shape in shapes.items()
            }
            self.network.load_state_dict(tensors)
            self.network.eval()
            if not self.codebook or self.unit:
                break
            features = self.features(torch.from_numpy(golden.images()))
            scales[self.name(self.codebook)] = round(features.square().sum(1).mean().sqrt().item(), 4)
        return scales

    def file(self) -> dict[str, list[int]]:
        shapes = {self.name(key): list(tensor.shape) for key, tensor in self.network.state_dict().items()}
        return {**shapes, **self.extras}

    def margin(self, images: Tensor) -> Tensor:
        """The gap of every code, (B, h, w)."""
        features = self.features(images).double().movedim(1, -1)
        return self.gap(features.flatten(0, -2)).view(features.shape[:-1])


# files, as they are published


def ckpt(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
    """That of PyTorch Lightning: callbacks by their classes, and a YAML beside it."""
    import yaml

    state = {name.removeprefix("state_dict."): tensor for name, tensor in tensors.items()}
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    parents: dict[str, Any] = {"pytorch_lightning": {}, "pytorch_lightning.callbacks": {}}
    with stubs({**parents, name: {"ModelCheckpoint": callback}}):
        document = {
            "epoch": 3, "global_step": 1000, "pytorch-lightning_version": "1.0.8", "state_dict": state,
            "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "best_model_path": "last.ckpt"}},
            "optimizer_states": [], "lr_schedulers": [],
        }  # fmt: skip
        torch.save(document, folder / "last.ckpt")
    (folder / "model.yaml").write_text(yaml.safe_dump(original.settings), encoding="utf-8")


def config_json(original: Original, folder: Path) -> None:
    if original.settings:
        (folder / "config.json").write_text(json.dumps(original.settings), encoding="utf-8")


def safetensors(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config_json(original, folder)


def saved(name: str) -> Callable[[Original, dict[str, Tensor], Path], None]:
    """A dict of tensors by `torch.save`, in a dict where their names have a first part in common."""

    def write(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
        model = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
        torch.save({"model": model} if model.keys() != tensors.keys() else tensors, folder / name)
        config_json(original, folder)

    return write


# gaps


def best_less_second(scores: Tensor) -> Tensor:
    best = scores.topk(2).values
    return best[:, 0] - best[:, 1]


def by_distance(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    return lambda features: best_less_second(-torch.cdist(features, embedding.weight.double()).square())


def by_direction(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    unit = nn.functional.normalize
    return lambda features: best_less_second(unit(features, dim=1) @ unit(embedding.weight.double(), dim=1).T)


def by_product(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    return lambda features: best_less_second(features @ embedding.weight.double().T)


def signed(images: Tensor) -> Tensor:
    return 2 * images - 1


def unsigned(pixels: Tensor) -> Tensor:
    return (pixels + 1) / 2


@contextlib.contextmanager
def stubs(modules: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Modules of this content in the place of what the originals import and inference does not use."""
    before = {name: sys.modules.get(name) for name in modules}
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(content)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class Module(nn.Module):
    """In the place of a LightningModule."""

    def __init__(self) -> None:
        super().__init__()


def no_loss(_: Any) -> nn.Module:
    return nn.Module()


# taming-transformers


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


# diffusers


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


# transformers


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


# DALL-E


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


# Open-MAGVIT2's repository


def openimagetokenizer() -> str:
    return f"openimagetokenizer {version('openimagetokenizer')}"


def open_magvit2_package(folder: str) -> Any:
    """The module of a model, without the packages' own `__init__`, which import what is not there."""
    lightning, root = {"LightningModule": Module}, package_folder()
    places = {"OpenImageTokenizer": root, f"OpenImageTokenizer.{folder}": root / folder}
    places[f"OpenImageTokenizer.{folder}.models"] = root / folder / "models"
    modules: dict[str, dict[str, Any]] = {name: {"__path__": [str(path)]} for name, path in places.items()}
    modules |= {"pytorch_lightning": lightning, "lightning": lightning}
    modules[f"OpenImageTokenizer.{folder}.models.main"] = {"instantiate_from_config": no_loss}
    with stubs(modules):
        model = {"IBQ": "ibqgan", "Open_MAGVIT2": "lfqgan"}[folder]
        return importlib.import_module(f"OpenImageTokenizer.{folder}.models.{model}")


def package_folder() -> Path:
    found = importlib.util.find_spec("OpenImageTokenizer")
    assert found and found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def ibq(_: Path | None) -> Original:
    ddconfig = {
        "double_z": False, "z_channels": 16, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [8, 16], "dropout": 0.0,
    }  # fmt: skip
    params = {"embed_dim": 16, "n_embed": 128, "ddconfig": ddconfig}
    with contextlib.redirect_stdout(io.StringIO()):
        network = open_magvit2_package("IBQ").IBQ(**params, lossconfig={})
    settings = {"model": {"class_path": "src.IBQ.models.ibqgan.IBQ", "init_args": params}}
    return vq(
        network, f"{openimagetokenizer()}, IBQ.models.ibqgan.IBQ", settings,
        gap=by_product(network.quantize.embedding),
    )  # fmt: skip


def of_magvit2(network: Any, chosen: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def averaged(value: Tensor) -> Tensor:
        with network.ema_scope():
            return chosen(value)

    return averaged


def open_magvit2(_: Path | None) -> Original:
    ddconfig = {
        "double_z": False, "z_channels": 8, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2, 2], "num_res_blocks": 2,
    }  # fmt: skip
    params = {"embed_dim": 8, "n_embed": 256, "ddconfig": ddconfig}
    network = open_magvit2_package("Open_MAGVIT2").VQModel(
        **params, lossconfig={}, sample_minimization_weight=1.0, batch_maximization_weight=1.0, use_ema=True
    )

    def features(images: Tensor) -> Tensor:
        return network.encoder(signed(images))

    def codes(images: Tensor) -> Tensor:
        latents = features(images)
        return network.quantize(latents)[2].view(len(latents), *latents.shape[-2:])

    def pixels(chosen: Tensor) -> Tensor:
        shape = (*chosen.shape, 8)
        return unsigned(network.decode(network.quantize.get_codebook_entry(chosen.flatten(1), shape, "")))

    settings = {
        "model": {
            "class_path": "src.Open_MAGVIT2.models.lfqgan.VQModel",
            "init_args": {
                **params,
                "use_ema": True,
                "sample_minimization_weight": 1.0,
                "batch_maximization_weight": 1.0,
            },
        }
    }
    return Original(
        f"{openimagetokenizer()}, Open_MAGVIT2.models.lfqgan.VQModel, averaged weights", network,
        codes=of_magvit2(network, codes), pixels=of_magvit2(network, pixels), features=of_magvit2(network, features),
        gap=lambda z: z.abs().amin(1), settings=settings, name=in_state_dict, extras=LOSS, write=ckpt,
    )  # fmt: skip


# what is not on PyPI


COPIED = "# reading copy"  # begins a file that holds what inference needs of the repository's


def source(
    sources: Path | None,
    file: str,
    change: Callable[[str], str] = str,
    beside: dict[str, dict[str, Any]] | None = None,
) -> Any:
    """The module in `sources/file`, a clone of the repository that the path begins with.

    Without its package, which imports what is not needed, and without assertions: some ask for square images. `beside`
    holds the content of modules that it imports; names that begin with a dot are in its package.
    """
    if sources is None:
        raise FileNotFoundError(f"needs --sources with {file}")
    text = (sources / file).read_text(encoding="utf-8")
    package = f"original_{Path(file).parts[0].replace('-', '_')}"
    module = types.ModuleType(f"{package}.{Path(file).stem}")
    module.__package__ = package
    sys.modules[module.__name__] = module  # dataclasses look their module up
    modules = {f"{package}{name}" if name[0] == "." else name: content for name, content in (beside or {}).items()}
    with stubs({package: {"__path__": []}, **modules}):
        exec(compile(change(text), file, "exec", optimize=1), module.__dict__)
    module.__dict__["copied"] = ", copy of what inference needs" if text.startswith(COPIED) else ""
    return module


def llamagen(sources: Path | None) -> Original:
    module = source(sources, "LlamaGen/tokenizer/tokenizer_image/vq_model.py")
    mult = [1, 2, 2]
    config = module.ModelArgs(codebook_size=128, z_channels=24, encoder_ch_mult=mult, decoder_ch_mult=mult)
    network = module.VQModel(config)
    network.encoder = module.Encoder(ch=32, ch_mult=mult, z_channels=24)  # of 128 channels otherwise
    network.decoder = module.Decoder(ch=32, ch_mult=mult, z_channels=24)

    def features(images: Tensor) -> Tensor:
        return network.quant_conv(network.encoder(signed(images)))

    def codes(images: Tensor) -> Tensor:
        latents, _, (_, _, indices) = network.encode(signed(images))
        return indices.view(len(images), *latents.shape[-2:])

    def pixels(chosen: Tensor) -> Tensor:
        batch, height, width = chosen.shape
        return unsigned(network.decode_code(chosen.flatten(), (batch, 8, height, width)))

    return Original(
        f"FoundationVision/LlamaGen@3786e6ad, VQModel{module.copied}", network, codes, pixels, features,
        gap=by_direction(network.quantize.embedding), name=lambda key: f"model.{key}",
        codebook="quantize.embedding.weight", write=saved("vq_ds16.pt"),
    )  # fmt: skip


def maskgit(sources: Path | None) -> Original:
    module = source(sources, "1d-tokenizer/modeling/modules/maskgit_vqgan.py")
    config = types.SimpleNamespace(
        channel_mult=[1, 2, 2], num_resolutions=3, dropout=0.0, hidden_channels=32, num_channels=3, num_res_blocks=2,
        resolution=32, z_channels=16,
    )  # fmt: skip
    network: Any = nn.ModuleDict(
        {
            "encoder": module.Encoder(config),
            "decoder": module.Decoder(config),
            "quantize": module.VectorQuantizer(128, 16, 0.25),
        }
    )
    encoder, decoder, quantize = network["encoder"], network["decoder"], network["quantize"]

    def codes(images: Tensor) -> Tensor:
        latents = encoder(images)
        return quantize.get_code(latents).view(len(images), *latents.shape[-2:])

    return Original(
        f"bytedance/1d-tokenizer@be0b076c, modules of maskgit_vqgan{module.copied}", network, codes,
        lambda chosen: decoder(quantize.get_codebook_entry(chosen)), encoder, by_distance(quantize.embedding),
        scales={"decoder.conv_out.weight": 0.4}, write=saved("maskgit-vqgan.bin"),
        codebook="quantize.embedding.weight",
    )  # fmt: skip


class Named(dict[str, Any]):
    """Keys that are attributes too, as OmegaConf's."""

    __getattr__ = dict.__getitem__


def mindalle(sources: Path | None) -> Original:
    hparams = Named(
        double_z=False, z_channels=16, resolution=32, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 1, 2],
        num_res_blocks=1, attn_resolutions=[8],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        layers = source(sources, "minDALL-E/dalle/models/stage1/layers.py")
        beside = {".layers": vars(layers), "omegaconf": {"OmegaConf": dict}}
        module = source(sources, "minDALL-E/dalle/models/stage1/vqgan.py", beside=beside)
        network = module.VQGAN(128, 16, hparams)

    def features(images: Tensor) -> Tensor:
        return network.quant_conv(network.encoder(signed(images)))

    def codes(images: Tensor) -> Tensor:
        latents = features(images)
        return network.quantize(latents)[1].view(len(images), *latents.shape[-2:])

    settings = {"stage1": {"type": "vqgan", "embed_dim": 16, "n_embed": 128, "hparams": dict(hparams)}}
    label = f"minDALL-E (MatthiasCami8/minDALL-E@6d390a6a), VQGAN{module.copied}"
    return Original(
        label + ", layers of taming" * bool(layers.copied), network, codes,
        lambda chosen: unsigned(network.decode_code(chosen)), features, by_distance(network.quantize.embedding),
        settings=settings, name=in_state_dict, codebook="quantize.embedding.weight", write=ckpt,
    )  # fmt: skip


class Flax:
    """A Flax module with the methods of a torch module that `Original` calls."""

    def __init__(self, module: Any) -> None:
        import jax
        from flax.traverse_util import flatten_dict, unflatten_dict

        self.module, self.join = module, unflatten_dict
        params = module.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
        self.tensors = {".".join(key): torch.from_numpy(np.array(value)) for key, value in flatten_dict(params).items()}

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def eval(self) -> None:
        pass

    def params(self) -> dict[str, Any]:
        return self.join({tuple(key.split(".")): tensor.numpy() for key, tensor in self.tensors.items()})

    def __call__(self, value: Tensor, method: Any) -> Any:
        return self.module.apply({"params": self.params()}, value.numpy(), method=method)


def msgpack(original: Original, _: dict[str, Tensor], folder: Path) -> None:
    from flax.serialization import to_bytes

    network: Any = original.network
    (folder / "flax_model.msgpack").write_bytes(to_bytes(network.params()))
    config_json(original, folder)


NESTED = """      for attn_block in self.attn:
        hidden_states = attn_block(hidden_states)
"""
PAIRED = """      if self.attn:
        hidden_states = self.attn[self.block.index(res_block)](hidden_states)
"""


def dalle_mini(sources: Path | None, paired: bool = True) -> Original:
    """Each attention after its own block, as taming trained the weights: the source applies all after every block."""
    config = {
        "ch": 32, "out_ch": 3, "in_channels": 3, "num_res_blocks": 1, "resolution": 32, "z_channels": 24,
        "ch_mult": [1, 2, 2], "attn_resolutions": [8], "n_embed": 128, "embed_dim": 16, "dropout": 0.0,
        "double_z": False, "resamp_with_conv": True, "use_gumbel": False, "gumbel_kl_weight": 1e-8,
        "give_pre_end": False, "num_resolutions": 3,
    }  # fmt: skip

    def change(text: str) -> str:
        assert text.count(NESTED) == 2
        return text.replace(NESTED, PAIRED) if paired else text

    beside = {".configuration_vqgan": {"VQGANConfig": Any}}
    beside["transformers.modeling_flax_utils"] = {"FlaxPreTrainedModel": object}
    module = source(sources, "vqgan-jax/vqgan_jax/modeling_flax_vqgan.py", change, beside)
    flax = Flax(module.VQModule(types.SimpleNamespace(**{**config, "ch_mult": (1, 2, 2), "attn_resolutions": (8,)})))

    def tensor(value: Any) -> Tensor:
        return torch.from_numpy(np.array(value))

    def codes(images: Tensor) -> Tensor:
        latents, indices = flax(signed(images).movedim(1, -1), module.VQModule.encode)
        return tensor(indices).long().view(latents.shape[:-1])

    def features(images: Tensor) -> Tensor:
        def prequant(self: Any, values: Any) -> Any:
            return self.quant_conv(self.encoder(values))

        return tensor(flax(signed(images).movedim(1, -1), prequant)).movedim(-1, 1)

    def pixels(chosen: Tensor) -> Tensor:
        latents = flax.tensors["quantize.embedding.embedding"][chosen]
        return unsigned(tensor(flax(latents, module.VQModule.decode)).movedim(-1, 1))

    def gap(values: Tensor) -> Tensor:
        return best_less_second(-torch.cdist(values, flax.tensors["quantize.embedding.embedding"].double()).square())

    network: Any = flax
    order = "each attention after its own block" if paired else "as it is"
    return Original(
        f"patil-suraj/vqgan-jax@44cb0110, {order}{module.copied}; flax {version('flax')}, jax {version('jax')}",
        network, codes, pixels, features, gap, settings={"architectures": ["VQModel"], "model_type": "vqgan", **config},
        codebook="quantize.embedding.embedding", write=msgpack,
    )  # fmt: skip


def cosmos(sources: Path | None) -> Original:
    if sources is None:
        raise FileNotFoundError("needs --sources with Cosmos-Tokenizer")
    sys.path.append(str(sources / "Cosmos-Tokenizer"))
    text = (sources / "Cosmos-Tokenizer/cosmos_tokenizer/modules/layers2d.py").read_text(encoding="utf-8")
    copied = ", copy of what inference needs" if text.startswith(COPIED) else ""
    from cosmos_tokenizer.modules.layers2d import Decoder, Encoder  # pyright: ignore[reportMissingImports]
    from cosmos_tokenizer.modules.quantizers import FSQuantizer  # pyright: ignore[reportMissingImports]

    levels = [8, 8, 8, 5, 5, 5]
    options = {
        "attn_resolutions": [32], "channels": 32, "channels_mult": [1, 2, 2], "dropout": 0.0, "in_channels": 3,
        "out_channels": 3, "spatial_compression": 8, "num_res_blocks": 2, "resolution": 1024, "patch_size": 4,
        "patch_method": "haar", "z_channels": 24,
    }  # fmt: skip
    network: Any = nn.Module()
    network.encoder, network.decoder = Encoder(**options), Decoder(**options)
    network.quant_conv, network.post_quant_conv = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
    quantizer = FSQuantizer(levels=levels)

    def features(images: Tensor) -> Tensor:
        return network.quant_conv(network.encoder(signed(images)))

    def pixels(chosen: Tensor) -> Tensor:
        return unsigned(network.decoder(network.post_quant_conv(quantizer.indices_to_codes(chosen))))

    def gap(values: Tensor) -> Tensor:
        return 0.5 - (quantizer.bound(values) - quantizer.bound(values).round()).abs().amax(1)

    return Original(
        f"NVIDIA/Cosmos-Tokenizer@9ea50837, layers2d and FSQuantizer{copied}", network,
        lambda images: quantizer(features(images))[0].long(), pixels, features, gap,
        settings={"architectures": ["CosmosTokenizer"]}, scales={"decoder.conv_out.weight": 0.3},
        write=saved("model.pt"),
    )  # fmt: skip


FORMATS: dict[str, Callable[[Path | None], Original]] = {
    make.__name__: make
    for make in (
        *(openai, taming, taming_gumbel, diffusers, amused, vqdiffusion, llamagen, ibq, maskgit, janus, chameleon),
        *(mindalle, dalle_mini, cosmos, open_magvit2),
    )
}


def positions(count: int) -> list[int]:
    return sorted(np.random.default_rng(0).choice(count, POSITIONS, replace=False).tolist())


@torch.no_grad()
def golden_file(name: str, original: Original) -> None:
    """Write `tests/golden/interop/NAME.json`, and say what it holds."""
    scales = original.fill()
    images = torch.from_numpy(golden.images())
    codes, margin = original.codes(images), original.margin(images)
    document: dict[str, Any] = {
        "original": original.original,
        "made": MADE,
        "settings": original.settings,
        "scales": scales,
        "tensors": original.file(),
        "codes": codes.tolist(),
        "margin": float(f"{margin.min().item():.3g}"),
        "pixels": None,
    }
    if original.pixels:
        pixels = original.pixels(codes).numpy()
        at = positions(pixels.size)
        values = [float(f"{value:.7g}") for value in pixels.ravel()[at]]
        document["pixels"] = {"shape": list(pixels.shape), "at": at, "values": values}
        print(f"  pixels {pixels.min():.2f} to {pixels.max():.2f}, standard deviation {pixels.std():.2f}")
    path = ROOT / "tests/golden/interop" / f"{name}.json"
    path.write_text(written(document), encoding="utf-8")
    distinct, count = len(codes.unique()), codes.numel()
    print(f"  {count} codes, {distinct} distinct, margin {margin.min():.2g}, {path.stat().st_size} bytes")


CODES, HEIGHT, WIDTH, BATCH = 10_000, 64, 96, 8  # of the comparison


@torch.no_grad()
def compared_files(name: str, original: Original, folder: Path) -> None:
    """Write `FOLDER/NAME/`, the model as it is published, and `FOLDER/NAME.npz`, its answers for 10,000 codes."""
    scales = original.fill()
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    tensors = {own: torch.from_numpy(golden.filled(own, shape, scales)) for own, shape in original.file().items()}
    (original.write or safetensors)(original, tensors, place)
    first = original.codes(torch.from_numpy(golden.images(1, HEIGHT, WIDTH)))
    images = torch.from_numpy(golden.images(-(-CODES // first.numel()), HEIGHT, WIDTH))
    found: dict[str, list[Tensor]] = {"codes": [], "gaps": [], "pixels": [], "lengths": []}
    for batch in images.split(BATCH):
        codes = original.codes(batch)
        found["codes"].append(codes)
        found["gaps"].append(original.margin(batch))
        found["lengths"].append(original.features(batch).square().sum(1))
        if original.pixels:
            found["pixels"].append(original.pixels(codes))
    answers = {key: torch.cat(values).numpy() for key, values in found.items() if values}
    about = {"original": original.original, "tensors": len(tensors), "torch": torch.__version__}
    np.savez(folder / f"{name}.npz", about=np.array(json.dumps(about)), images=images.numpy(), **answers)
    print(f"  {answers['codes'].size:,} codes, in {', '.join(sorted(path.name for path in place.iterdir()))}")


def written(document: dict[str, Any]) -> str:
    """JSON with one line a key, and one a tensor."""
    lines = []
    for key, value in document.items():
        if key == "tensors":
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in value.items())
            lines.append(f'"tensors": {{\n{inner}\n}}')
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", action="store_true", help="write the golden files of the tests")
    parser.add_argument("--out", type=Path, help="write models as they are published, and their answers, here")
    parser.add_argument("--sources", type=Path, help="folder of the sources that are not on PyPI")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name in arguments.formats:
        try:
            original = FORMATS[name](arguments.sources)
        except (ImportError, FileNotFoundError) as error:
            print(f"{name}: left out, {error}")
            continue
        print(f"{name}: {original.original}")
        if arguments.golden:
            golden_file(name, original)
        if arguments.out:
            compared_files(name, original, arguments.out)


if __name__ == "__main__":
    main()
