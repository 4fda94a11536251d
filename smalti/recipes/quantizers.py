"""Tokenizers with other quantizers, on the same networks, data, schedule and budget as the VQ-VAE.

    smalti train fsq --data emoji --out runs/fsq

`smalti compare` compares them.
"""

from typing import Any, Literal

from smalti.recipes.autoencoders import experiment
from smalti.training.experiment import Experiment, LossConfig


def fsq(*, levels: tuple[int, ...] = (8, 8, 8), **common: Any) -> Experiment:
    """Finite scalar quantization: every channel is rounded to a few levels; there is no codebook to collapse.

    Args:
        levels: of each channel; their product is K.
        **common: see `experiment`.
    """
    return experiment("fsq", {"kind": "fsq", "levels": tuple(levels)}, LossConfig(), **common)


def lfq(
    *,
    bits: int = 9,
    softness: float = 1.0,
    commitment_weight: float = 0.25,
    entropy_weight: float = 0.1,
    **common: Any,
) -> Experiment:
    """Lookup-free quantization: the code is the signs of the features, K = 2^bits.

    Args:
        bits: of a code.
        softness: temperature of the soft assignment in the entropies.
        commitment_weight: of the term that keeps features near their code.
        entropy_weight: of the entropies: sure codes, all of them used.
        **common: see `experiment`.
    """
    return _binary("lfq", bits, False, softness, commitment_weight, entropy_weight, common)


def bsq(
    *,
    bits: int = 9,
    softness: float = 0.1,
    commitment_weight: float = 0.25,
    entropy_weight: float = 0.1,
    **common: Any,
) -> Experiment:
    """Binary spherical quantization: the signs of features on the unit sphere, K = 2^bits.

    Args:
        bits: of a code.
        softness: temperature of the soft assignment in the entropies.
        commitment_weight: of the term that keeps features near their code.
        entropy_weight: of the entropies: sure codes, all of them used.
        **common: see `experiment`.
    """
    return _binary("bsq", bits, True, softness, commitment_weight, entropy_weight, common)


def _binary(
    recipe: str, bits: int, spherical: bool, softness: float, commitment: float, entropy: float, common: dict[str, Any]
) -> Experiment:
    bottleneck = {"kind": "binary_quantizer", "bits": bits, "spherical": spherical, "softness": softness}
    loss = LossConfig(commitment_weight=commitment, entropy_weight=entropy)
    return experiment(recipe, bottleneck, loss, **common)


def rvq(
    *,
    num_codebooks: int = 4,
    codebook_size: int = 256,
    code_dim: int = 16,
    drop: float = 0.5,
    learning: Literal["ema", "gradient", "simvq"] = "ema",
    restart_below: float = 0.3,
    commitment_weight: float = 0.25,
    **common: Any,
) -> Experiment:
    """Residual VQ: several codes at each position, each for what the ones before it left over; a quality dial.

    Args:
        num_codebooks: codes at each position.
        codebook_size: K, of each codebook.
        code_dim: D, of a code vector.
        drop: the share of training images that get only the first few codes.
        learning: see `vqvae`.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        commitment_weight: of the term that keeps features near their code.
        **common: see `experiment`.
    """
    bottleneck = {
        "kind": "residual_quantizer",
        "num_codebooks": num_codebooks,
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "drop": drop,
        "quantizer": {"learning": learning, "restart_below": restart_below},
    }
    return experiment("rvq", bottleneck, LossConfig(commitment_weight=commitment_weight), **common)


def pq(
    *,
    num_codebooks: int = 2,
    codebook_size: int = 256,
    code_dim: int = 16,
    learning: Literal["ema", "gradient", "simvq"] = "ema",
    restart_below: float = 0.3,
    commitment_weight: float = 0.25,
    **common: Any,
) -> Experiment:
    """Product VQ: the channels in groups, each with its own codebook.

    Args:
        num_codebooks: groups.
        codebook_size: K, of each codebook.
        code_dim: D, of all groups together.
        learning: see `vqvae`.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        commitment_weight: of the term that keeps features near their code.
        **common: see `experiment`.
    """
    bottleneck = {
        "kind": "product_quantizer",
        "num_codebooks": num_codebooks,
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "quantizer": {"learning": learning, "restart_below": restart_below},
    }
    return experiment("pq", bottleneck, LossConfig(commitment_weight=commitment_weight), **common)
