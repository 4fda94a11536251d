"""vqgan-jax, in Flax."""

import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .files import config_json
from .original import Original, best_less_second, signed, unsigned
from .sources import source


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
