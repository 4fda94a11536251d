"""Mutated model.safetensors: headers, types, lengths, values; where config.json names the hash, nothing else loads."""

import hashlib
import json
import os
import warnings

import torch

from smalti.files import CONFIG, WEIGHTS, read_json, write_json
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.pretrained import WEIGHTS_HASH
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig

from .drive_configs import CODEBOOK, STRIDED
from .evil import changed_value
from .harness import Fault, changed_bytes

SHORT = 120
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def prepare(folder):
    """(class, folder, weights, config) of an autoencoder and a prior, small and from the same start each time."""
    torch.manual_seed(0)
    vq = {"kind": "vector_quantizer", **CODEBOOK, "start": "random"}
    prior = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2}
    codes = {"codebook_size": 12, "grid": (2, 3), "tokenizer": "x", "tokenizer_hash": "0" * 64}
    models = [
        Autoencoder(AutoencoderConfig(networks=STRIDED, bottleneck=vq)),
        CodeModel(PriorConfig(prior=prior, **codes)),
    ]
    found = []
    for number, model in enumerate(models):
        place = folder / str(number)
        model.save_pretrained(place)
        found.append((type(model), place, (place / WEIGHTS).read_bytes(), read_json(place / CONFIG)))
    return found


def attempt(models, rng):
    """One of them with other weights, beside their hash, their own hash, or none."""
    kind, folder, good, config = models[rng.integers(len(models))]
    length = 8 + int.from_bytes(good[:8], "little")
    match int(rng.integers(0, 4)):
        case 0:
            data = changed_bytes(good, rng, front=length)
        case 1:  # the body
            place = int(rng.integers(length, len(good)))
            data = good[:place] + bytes([good[place] ^ (1 << int(rng.integers(8)))]) + good[place + 1 :]
        case 2:  # the header, with a length that fits
            header = json.dumps(changed_value(json.loads(good[8:length]), rng)).encode()
            data = len(header).to_bytes(8, "little") + header + good[length:]
        case _:
            data = of_other_types(good, rng)
    (folder / WEIGHTS).write_bytes(data)
    choice = rng.random()
    if choice < 0.4:  # an older folder
        config = {key: value for key, value in config.items() if key != WEIGHTS_HASH}
    elif choice < 0.6:  # somebody who knows how
        config = {**config, WEIGHTS_HASH: hashlib.sha256(data).hexdigest()}
    write_json(folder / CONFIG, config)
    os.utime(folder / WEIGHTS, (0, 0))  # nobody is about to write the other file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_pretrained(folder)
    if choice >= 0.6 and data != good:
        raise Fault("other weights than config.json names were loaded")
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise Fault("weights that are not finite were loaded")
    return "the same weights" if data == good else "other weights, of which no hash is known"


def of_other_types(good: bytes, rng) -> bytes:
    """The same names and shapes, some tensors of other types, with random bytes or not-a-number in them."""
    length = 8 + int.from_bytes(good[:8], "little")
    header, body, place = json.loads(good[8:length]), b"", 0
    for key, own in header.items():
        if key == "__metadata__":
            continue
        begin, end = own["data_offsets"]
        data = good[length + begin : length + end]
        if rng.random() < 0.2:
            own["dtype"] = [*SIZES][rng.integers(len(SIZES))]
            number = SIZES[own["dtype"]]
            for size in own["shape"]:
                number *= size
            data = [
                bytes(number),
                b"\xff" * number,
                rng.bytes(number),
                b"\x00\x3c" * (number // 2) + bytes(number % 2),
            ][rng.integers(4)]
        own["data_offsets"], place, body = [place, place + len(data)], place + len(data), body + data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body
