"""What `smalti train NAME` knows: typed functions that return a frozen `Experiment`. Nothing here imports torch."""

from collections.abc import Callable
from typing import Any

from smalti.recipes.autoencoders import ae, dvae, vae, vqgan, vqvae
from smalti.recipes.categorical import emoji_categorical, mnist_categorical
from smalti.recipes.cifar_vqvae import cifar_fsq, cifar_vqvae
from smalti.recipes.finetune import finetune
from smalti.recipes.mlp_vae import mlp_vae
from smalti.recipes.mnist_pixelcnn import mnist_pixelcnn
from smalti.recipes.mnist_vae import mnist_vae
from smalti.recipes.priors import maskgit, pixelcnn, pixelsnail, transformer
from smalti.recipes.quantizers import bsq, fsq, lfq, pq, rvq

_ALL = (ae, vae, vqvae, vqgan, dvae, fsq, lfq, bsq, rvq, pq, mlp_vae, mnist_vae, mnist_categorical, emoji_categorical,
        cifar_vqvae, cifar_fsq, mnist_pixelcnn, pixelcnn, pixelsnail, transformer, maskgit, finetune)  # fmt: skip
RECIPES: dict[str, Callable[..., Any]] = {recipe.__name__: recipe for recipe in _ALL}
