"""What `smalti train NAME` knows: typed functions that return a frozen `Experiment`. Nothing here imports torch."""

from collections.abc import Callable
from typing import Any

from smalti.recipes.autoencoders import ae, dvae, vae, vqvae
from smalti.recipes.mnist import mnist_vae
from smalti.recipes.priors import pixelcnn, transformer

RECIPES: dict[str, Callable[..., Any]] = {
    "ae": ae,
    "vae": vae,
    "vqvae": vqvae,
    "dvae": dvae,
    "mnist_vae": mnist_vae,
    "pixelcnn": pixelcnn,
    "transformer": transformer,
}
