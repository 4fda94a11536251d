"""The evaluation protocol of all priors: bits per code over a whole split, with two context-free baselines."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import smalti
from smalti.configs import to_dict
from smalti.data.config import Data, DataConfig
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.evaluation.generation import sampler_of_prior
from smalti.evaluation.perception import FeatureNetwork
from smalti.evaluation.samples import measure_samples
from smalti.evaluation.spread import PerImage
from smalti.generate.tokenizer import open_tokenizer
from smalti.modes import evaluating
from smalti.priors.code_model import CodeModel
from smalti.priors.family import Histogram, Prior
from smalti.training.codes import load_codes


def evaluate_prior(
    model: CodeModel,
    data: Data,
    split: Split = "test",
    *,
    batch_size: int = 64,
    networks: Mapping[str, FeatureNetwork] | None = None,
    samples: int = 0,
    cache: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a prior on the codes of every image of a split; docs/evaluation.md says what each metric is.

    Args:
        model: a trained prior.
        data: as for `smalti.open_data`; its "train" split fits the histogram.
        split: the part to measure.
        batch_size: images at a time; changes no number.
        networks: for the distances of samples, see `open_networks`.
        samples: images whose distance to the split is measured; those of a prior with labels or text have the labels or
            captions of as many images of the split. 0 leaves it out.
        cache: the prior's folder, where codes are cached.
        progress: show a bar.

    Returns:
        As `smalti.evaluation.autoencoders.evaluate`.

    Raises:
        SmaltiError: no such data or split, or another tokenizer than the prior's.
    """
    config, source = model.config, open_data(data, split)
    codes, condition = load_codes(config, source, cache, text=model.text).fixed()
    histogram = Histogram(codebook_size=config.codebook_size, grid=config.grid)
    histogram.fit(load_codes(replace(config, labels=()), open_data(data, "train"), cache).fixed()[0])
    tokenizer, images = open_tokenizer(config), PerImage()
    images.add(bits=_bits(evaluating(model.prior), codes, condition, batch_size, progress))
    bits, floor = images.value("bits"), _bits(histogram, codes, None, batch_size, False).mean().item()
    units = {
        "nll_nats": math.log(2),
        "bits": 1.0,
        "bits_per_code": 1 / codes[0].numel(),
        "bits_per_dim": 1 / tokenizer.preprocessing.num_dims,
        "share_of_histogram": 1 / floor,
    }
    result = {
        "data": str(data),
        "data_config": to_dict(DataConfig.of(data)),
        "split": split,
        "num_images": len(codes),
        "fingerprint": source.fingerprint,
        "model_hash": model.source_hash,
        "tokenizer_hash": config.tokenizer_hash,
        "smalti": smalti.__version__,
        "networks": {name: network.about() for name, network in (networks or {}).items()} if samples else {},
        "metrics": {name: bits * unit for name, unit in units.items()}
        | {
            "histogram_bits_per_code": floor / codes[0].numel(),
            "uniform_bits_per_code": math.log2(config.codebook_size),
        },
        "spread": {name: images.spread("bits") * unit for name, unit in units.items()},
    }
    if samples:

        def reconstruct(originals: Tensor) -> Tensor:
            return tokenizer.decode(tokenizer.encode(originals))

        sample = sampler_of_prior(model, tokenizer, condition)
        measure_samples(result, data, samples, tokenizer.preprocessing, networks or {}, sample, reconstruct)
    return result


@torch.no_grad()
def _bits(prior: Prior, codes: Tensor, condition: Tensor | None, batch_size: int, progress: bool) -> Tensor:
    """-log2 p(codes) of each image, (N,) float64."""
    found = []
    for start in tqdm(range(0, len(codes), batch_size), desc="evaluating", disable=not progress, leave=False):
        part = slice(start, start + batch_size)
        given = None if condition is None else condition[part].to(prior.device)
        found.append(prior.nll(codes[part].to(prior.device), given).double().cpu())
    return torch.cat(found) / math.log(2)
