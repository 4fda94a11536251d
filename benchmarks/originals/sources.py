"""What is not on PyPI: clones of the repositories."""

import contextlib
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .files import ckpt, saved
from .original import Original, by_direction, by_distance, signed, stubs, unsigned
from .taming import in_state_dict

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
