"""Mutated text.json of a prior: one clear error, or a tokenizer that gives the same tokens twice."""

import copy
import json

from smalti.priors.text import FILE, TextTokenizer

from .evil import as_json, changed_value
from .harness import Fault, changed_bytes

SHORT = 150
VOCABULARY, LENGTH = 300, 8
PARTS = [
    {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Replace", "pattern": {"Regex": "(.*a){25}"}, "content": "aaaa"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000},
    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False},
    {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * 3},
    {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]},
    {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"},
    {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
    {"max_length": 1, "stride": 5, "strategy": "LongestFirst", "direction": "Right"},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "special_tokens": {}},
    {"type": "ByteFallback"},
    {"type": "Metaspace", "replacement": "_"},
    {"type": "ByteLevel", "add_prefix_space": False},
]


def prepare(folder):
    """(folder, its text.json)."""
    TextTokenizer.train(["red heart", "blue heart", "a red circle"], VOCABULARY, LENGTH).save(folder)
    return folder, (folder / FILE).read_bytes()


def attempt(state, rng):
    """A mutant of it, read and used."""
    folder, good = state
    values = json.loads(good)
    if rng.random() < 0.2:
        data = changed_bytes(good, rng, front=len(good))
    else:
        for _ in range(int(rng.integers(1, 3))):
            change(values, rng)
        data = as_json(values, rng)
    (folder / FILE).write_bytes(data)
    text = TextTokenizer.load(folder, LENGTH, VOCABULARY)
    tokens = text(["a red heart", "a" * 100], cut=True)
    if not tokens.equal(text(["a red heart", "a" * 100], cut=True)) or int(tokens.max()) >= VOCABULARY:
        raise Fault("tokens that change, or lie outside of the vocabulary")
    text.decode(tokens[0])
    return "loads"


def change(values, rng) -> None:
    """Something evil in the place of a part, a setting, a token or a merge."""
    keys, model = [key for key in values if key != "model"], values["model"]
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or not model["vocab"]:
        return
    match int(rng.integers(0, 9)):
        case 0:
            values[keys[rng.integers(len(keys))]] = copy.deepcopy(PARTS[rng.integers(len(PARTS))])
        case 1:
            values["model"] = copy.deepcopy(PARTS[rng.integers(len(PARTS))])
        case 2:
            model["dropout"] = [0.9, 0.0, 1e308, -1, "x"][rng.integers(5)]
        case 3:
            token = [*model["vocab"]][rng.integers(len(model["vocab"]))]
            model["vocab"][token] += [1, -1, 10**6, -(10**6), 2**32][rng.integers(5)]
        case 4:
            token = [*model["vocab"]][rng.integers(len(model["vocab"]))]
            model["vocab"][token * int(rng.integers(1, 2000))] = model["vocab"].pop(token)
        case 5:
            model["merges"] = changed_value(model.get("merges"), rng)
        case 6 if isinstance(model.get("merges"), list):
            rng.shuffle(model["merges"])
            del model["merges"][int(rng.integers(len(model["merges"]) + 1)) :]
        case 7:
            one, other = ([*model["vocab"]][rng.integers(len(model["vocab"]))] for _ in range(2))
            model["vocab"][one], model["vocab"][other] = model["vocab"][other], model["vocab"][one]
        case _:
            values["model"] = changed_value({key: value for key, value in model.items() if key != "vocab"}, rng)
            if isinstance(values["model"], dict):
                values["model"].setdefault("vocab", model["vocab"])
