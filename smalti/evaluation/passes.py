"""One pass of images through an autoencoder, for what is measured of it; in tiles where images are large."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.tiles import Mosaic

DETERMINISTIC, RELAXED, SAMPLED = "", "relaxed_", "sampled_"  # latents, by what begins the names of their numbers


class Pass(NamedTuple):
    """What a model makes of images."""

    codes: Tensor | None  # (B, *grid); None when continuous
    kl: Tensor  # (B,) nats
    reconstructions: Tensor  # (B, C, H, W), of deterministic latents
    distortions: dict[str, Tensor]  # (B,) each: [relaxed_|sampled_]distortion_(nats|bits)


class _Encoded(NamedTuple):
    codes: Tensor | None
    kl: Tensor
    latents: dict[str, Tensor]  # (B, D, h, w) by kind


def one_pass(model: Autoencoder, images: Tensor, look: Callable[[Tensor], Any]) -> Pass:
    """Images (B, C, H, W) on the model's device through it and back, padded to the stride by repeating the edge.

    Args:
        model: in eval mode.
        images: of one size.
        look: is shown the features (B, in_channels, h, w) of images that are not cut.
    """
    model.check_fits(images.shape[2], images.shape[3])
    encoded = _encode(model, images, look)
    made, distortions = Mosaic((images.shape[2], images.shape[3])), {}
    for kind, latents in encoded.latents.items():
        distortions |= _decode(model, images, kind, latents, made if kind == DETERMINISTIC else None)
    return Pass(encoded.codes, encoded.kl, made.whole, distortions)


def _encode(model: Autoencoder, images: Tensor, look: Callable[[Tensor], Any]) -> _Encoded:
    height, width = images.shape[2:]
    tiles, grid = model.tiles, model.networks.grid_of(height, width)
    kinds = (DETERMINISTIC, RELAXED, SAMPLED) if model.bottleneck.has_prior else (DETERMINISTIC, RELAXED)
    latents, codes, kl = {kind: Mosaic(grid) for kind in kinds}, Mosaic(grid), images.new_zeros(len(images))
    as_trained = copy.deepcopy(model.bottleneck).train()  # a copy, since training mode collects statistics
    for tile in tiles.of(height, width):
        features = model.features(tiles.cut(images, tile))[..., *tile.inside]
        if not tiles.are_several(height, width):
            look(features)
        output = model.bottleneck(features)
        latents[DETERMINISTIC].put(tile.keep, output.latents)
        latents[RELAXED].put(tile.keep, as_trained(features).latents)
        if SAMPLED in latents:
            latents[SAMPLED].put(tile.keep, model.bottleneck.sample_posterior(features).latents)
        if output.codes is not None:
            codes.put(tile.keep, output.codes)
        kl = kl + output.kl
    found = {kind: mosaic.whole for kind, mosaic in latents.items()}
    return _Encoded(None if codes.is_empty else codes.whole, kl, found)


def _decode(model: Autoencoder, images: Tensor, kind: str, latents: Tensor, made: Mosaic | None) -> dict[str, Tensor]:
    """-log p(x|z) of images, in nats and in bits of their 8-bit pixels; puts the reconstructions together."""
    parts: list[dict[str, Tensor]] = []
    for tile in model.tiles.of(images.shape[2], images.shape[3]):
        pixels = tile.in_pixels(model.stride)
        own = images[..., *pixels.keep]  # a slice ends where the image does
        parameters = model.decoder(latents[..., *tile.around])[..., *pixels.inside]
        parameters = parameters[..., : own.shape[2], : own.shape[3]]
        if made is not None:
            made.put(pixels.keep, model.likelihood.mean(parameters))
        parts.append({f"{kind}distortion_nats": model.likelihood.nll(parameters, own)})
        with contextlib.suppress(SmaltiError):  # a Bernoulli on grey images is no likelihood of pixels
            parts[-1][f"{kind}distortion_bits"] = model.likelihood.bits(parameters, own)
    known = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: sum((part[name] for part in parts[1:]), parts[0][name]) for name in known}
