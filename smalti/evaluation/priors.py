"""The evaluation protocol of all priors: bits per code over a whole split, with two context-free baselines."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import smalti
from smalti.configs import to_dict
from smalti.data.config import Data, DataConfig
from smalti.data.splits import Split
from smalti.generate.tokenizer import open_tokenizer
from smalti.priors.code_model import CodeModel
from smalti.priors.family import Histogram, Prior
from smalti.training.codes import load_codes


def evaluate_prior(
    model: CodeModel,
    data: Data,
    split: Split = "test",
    *,
    batch_size: int = 64,
    cache: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a prior on the codes of every image of a split.

    In "metrics", means over images:

    - nll_nats, bits: -log p(codes) of an image (of a masked prior an upper bound); bits_per_code: the same per code;
    - bits_per_dim: bits / (C * H * W); of a prior on exact pixels that is the bits per dimension of the literature;
    - histogram_bits_per_code: of the per-position histogram of the training codes; uniform_bits_per_code: log2 K;
    - share_of_histogram: bits_per_code / histogram_bits_per_code.

    Args:
        model: a trained prior.
        data: as for `smalti.open_data`; its "train" split fits the histogram.
        split: the part to measure.
        batch_size: images at a time; changes no number.
        cache: the prior's folder, where codes are cached.
        progress: show a bar.

    Raises:
        SmaltiError: no such data or split, or another tokenizer than the prior's.
    """
    config = model.config
    codes, condition = load_codes(config, data, split, cache, text=model.text).fixed()
    histogram = Histogram(codebook_size=config.codebook_size, grid=config.grid)
    histogram.fit(load_codes(replace(config, labels=()), data, "train", cache).fixed()[0])
    bits = _mean_bits(model.eval().prior, codes, condition, batch_size, progress)
    floor = _mean_bits(histogram, codes, None, batch_size, False)
    return {
        "data": str(data),
        "data_config": to_dict(DataConfig.of(data)),
        "split": split,
        "num_images": len(codes),
        "model_hash": model.source_hash,
        "tokenizer_hash": config.tokenizer_hash,
        "smalti": smalti.__version__,
        "metrics": {
            "nll_nats": bits * math.log(2),
            "bits": bits,
            "bits_per_code": bits / codes[0].numel(),
            "bits_per_dim": bits / open_tokenizer(config).preprocessing.num_dims,
            "histogram_bits_per_code": floor / codes[0].numel(),
            "uniform_bits_per_code": math.log2(config.codebook_size),
            "share_of_histogram": bits / floor,
        },
    }


@torch.no_grad()
def _mean_bits(prior: Prior, codes: Tensor, condition: Tensor | None, batch_size: int, progress: bool) -> float:
    total = 0.0
    for start in tqdm(range(0, len(codes), batch_size), desc="evaluating", disable=not progress, leave=False):
        part = slice(start, start + batch_size)
        given = None if condition is None else condition[part].to(prior.device)
        total += prior.nll(codes[part].to(prior.device), given).double().sum().item()
    return total / len(codes) / math.log(2)
