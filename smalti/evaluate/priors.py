"""The one protocol for all priors: bits per code over a whole split, beside the priors that know no neighbours."""

import math
from pathlib import Path
from typing import Any

import torch

import smalti
from smalti.data.sources import Split
from smalti.priors.code_model import CodeModel
from smalti.priors.family import Histogram, Prior
from smalti.train.codes import Codes, load_codes


def evaluate_prior(
    model: CodeModel, data: str, split: Split = "test", *, batch_size: int = 64, cache: Path | None = None
) -> dict[str, Any]:
    """Measure a prior on the codes of every image of a split.

    In "metrics", means over images:

    - nll_nats, bits: -log p(codes) of an image; bits_per_code: the same per code;
    - histogram_bits_per_code: of the per-position histogram of the training codes; uniform_bits_per_code: log2 K;
    - share_of_histogram: bits_per_code / histogram_bits_per_code.

    Args:
        model: a trained prior.
        data: as for `smalti.open_data`; its "train" split fits the histogram.
        split: the part to measure.
        batch_size: images at a time; changes no number.
        cache: the prior's folder, for codes that were made before.

    Raises:
        SmaltiError: no such data or split, or another tokenizer than the prior's.
    """
    config = model.config
    codes = load_codes(config, data, split, cache)
    histogram = Histogram(codebook_size=config.codebook_size, grid=config.grid)
    histogram.fit(load_codes(config, data, "train", cache).codes)
    nats = _mean_nats(model.eval().prior, codes, model.device, batch_size)
    floor = _mean_nats(histogram, Codes(codes.codes, None), torch.device("cpu"), batch_size)
    per_code = 1 / (codes.codes[0].numel() * math.log(2))
    return {
        "data": data,
        "split": split,
        "num_images": len(codes.codes),
        "model_hash": model.source_hash,
        "tokenizer_hash": config.tokenizer_hash,
        "smalti": smalti.__version__,
        "metrics": {
            "nll_nats": nats,
            "bits": nats / math.log(2),
            "bits_per_code": nats * per_code,
            "histogram_bits_per_code": floor * per_code,
            "uniform_bits_per_code": math.log2(config.codebook_size),
            "share_of_histogram": nats / floor,
        },
    }


@torch.no_grad()
def _mean_nats(prior: Prior, codes: Codes, device: torch.device, batch_size: int) -> float:
    total = 0.0
    for start in range(0, len(codes.codes), batch_size):
        part = slice(start, start + batch_size)
        classes = None if codes.classes is None else codes.classes[part].to(device)
        total += prior.nll(codes.codes[part].to(device), classes).double().sum().item()
    return total / len(codes.codes)
