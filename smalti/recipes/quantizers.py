"""Tokenizers with other quantizers, on the same networks, data, schedule and budget as the VQ-VAE.

    smalti train fsq --data emoji --out runs/fsq

`smalti compare` compares them.
"""

from dataclasses import dataclass

from smalti.configs import effective
from smalti.recipes.autoencoders import BY_SIZE, Common, Scalars, Vectors
from smalti.recipes.flat import recipe
from smalti.training.experiment import Experiment, LossConfig


@dataclass(frozen=True, kw_only=True)
class Signs:
    """A code made of signs, K = 2^bits.

    Attributes:
        bits: of a code.
        softness: temperature of the soft assignment in the entropies.
        commitment_weight: of the term that keeps features near their code.
        entropy_weight: of the entropies: low for each feature, high for the batch, so that all codes are used.
    """

    bits: int = 9
    softness: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1

    def experiment(self, common: Common, *, spherical: bool) -> Experiment:
        """The training of an autoencoder with such codes."""
        options = {"bits": self.bits, "spherical": spherical, "softness": self.softness}
        loss = LossConfig(commitment_weight=self.commitment_weight, entropy_weight=self.entropy_weight)
        return common.experiment({"kind": "binary_quantizer", **options}, loss)


@recipe(BY_SIZE)
def fsq(common: Common, scalars: Scalars) -> Experiment:
    """Finite scalar quantization: every channel is rounded to a few levels; there is no codebook to collapse."""
    return common.experiment(scalars.quantizer)


@recipe(BY_SIZE)
def lfq(common: Common, signs: Signs) -> Experiment:
    """Lookup-free quantization: the code is the signs of the features, K = 2^bits."""
    return signs.experiment(common, spherical=False)


@recipe(BY_SIZE)
def bsq(common: Common, signs: Signs = Signs(softness=0.1)) -> Experiment:
    """Binary spherical quantization: the signs of features on the unit sphere, K = 2^bits."""
    return signs.experiment(common, spherical=True)


@dataclass(frozen=True, kw_only=True)
class Codebooks:
    """Several codebooks at each position.

    Attributes:
        num_codebooks: codes at each position.
        vectors: the codebooks.
    """

    num_codebooks: int
    vectors: Vectors = Vectors(codebook_size=256)

    def experiment(self, kind: str, common: Common, **options: float) -> Experiment:
        """The training of an autoencoder with such a bottleneck."""
        quantizer = self.vectors.quantizer
        shape = {name: quantizer.pop(name) for name in ("codebook_size", "code_dim")}
        del quantizer["kind"]
        bottleneck = {"kind": kind, "num_codebooks": self.num_codebooks, **shape, **options, "quantizer": quantizer}
        return common.experiment(bottleneck, self.vectors.loss)


@recipe(BY_SIZE)
def rvq(common: Common, codes: Codebooks = Codebooks(num_codebooks=4), *, drop: float | None = None) -> Experiment:
    """Residual VQ: several codes at each position, each of the residual of those before it; a prefix decodes too.

    Args:
        drop: the share of training images that get only the first few codes; 0.5 by default.
    """
    several = effective(codes.num_codebooks > 1, "with one codebook", drop=(drop, 0.5))
    return codes.experiment("residual_quantizer", common, **several)


@recipe(BY_SIZE)
def pq(common: Common, codes: Codebooks = Codebooks(num_codebooks=2)) -> Experiment:
    """Product VQ: the channels in groups, each with its own codebook."""
    return codes.experiment("product_quantizer", common)
