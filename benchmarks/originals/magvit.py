"""Open-MAGVIT2's repository."""

import contextlib
import importlib.util
import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from .files import ckpt
from .original import Module, Original, by_product, no_loss, signed, stubs, unsigned
from .taming import LOSS, in_state_dict, vq


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
