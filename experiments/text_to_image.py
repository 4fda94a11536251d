"""Text-image agreement: a classifier trained on real emoji judges the subgroup of samples.

    smalti demo --out runs/demo                       # or any tokenizer
    smalti train transformer --tokenizer runs/demo --text en --batch_size 16 --steps 8000 --out runs/t2i
    python experiments/text_to_image.py runs/t2i --out runs/t2i

Prints top-1 agreement for training captions and for held-out (test) captions, at several guidance scales and
temperatures, with the classifier's own accuracy on real images and reconstructions. Results: text_to_image.md.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smalti import Generator
from smalti.data.batches import CHANCES, Epochs, Pixels, augmented
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.images.pixels import to_float
from smalti.images.preprocessing import Preprocessing

LABEL, NUM_TRAIN = "subgroup", 500
SETTINGS = ((1.0, 1.0), (2.0, 1.0), (1.0, 0.8), (1.5, 0.8), (1.0, 0.6))  # (guidance, sampling temperature)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.skip(features) + self.second(F.relu(self.first(features))))


def classifier(num_classes: int) -> nn.Sequential:
    blocks = [Block(3, 32, 1), Block(32, 64, 2), Block(64, 128, 2), Block(128, 192, 2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, num_classes))


def images_of(split: Split, names: list[str]) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, 32, 32, 3) and classes (N,)."""
    source = open_data("emoji", split)
    pixels = torch.cat(list(Pixels(source, Preprocessing()).in_order(256)))
    return pixels, torch.tensor([names.index(source.labels[LABEL][index]) for index in source.indices])


def train_classifier(names: list[str], steps: int, seed: int) -> nn.Sequential:
    """On real training images only, shifted and flipped."""
    torch.manual_seed(seed)
    pixels, classes = images_of("train", names)
    model = classifier(len(names)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    order, batch_size = Epochs(len(pixels), seed=seed), 64
    for step in range(steps):
        chosen = order(step * batch_size, batch_size)
        chances = np.random.default_rng([seed, step]).random((len(chosen), CHANCES))
        batch = augmented(pixels.numpy()[chosen], "flip_shift", chances)
        loss = F.cross_entropy(model(to_float(torch.from_numpy(batch))), classes[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, classes: Tensor) -> float:
    guesses = torch.cat([model(part).argmax(1) for part in images.split(256)])
    return (guesses == classes).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=1500, help="of the classifier")
    parser.add_argument("--classifier", default="classifier.safetensors", help="made when it is not there")
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    everything = open_data("emoji", "all")
    names = sorted(set(everything.labels[LABEL]))
    start = time.perf_counter()
    model = classifier(len(names)).eval()
    if Path(arguments.classifier).exists():
        model.load_state_dict(load_file(arguments.classifier))
    else:
        model = train_classifier(names, arguments.steps, seed=0)
        save_file(model.state_dict(), arguments.classifier)
    print(f"classifier of {len(names)} subgroups: {time.perf_counter() - start:.0f} s", flush=True)

    generator = Generator.from_pretrained(arguments.run)
    result: dict[str, float] = {}
    for split in ("train", "test"):
        pixels, classes = images_of(split, names)
        images = to_float(pixels)
        result[f"classifier, real {split} images"] = accuracy(model, images, classes)
        again = generator.tokenizer.decode(generator.tokenizer.encode(images))
        result[f"classifier, reconstructed {split} images"] = accuracy(model, again, classes)
    for split in ("train", "test"):
        source = open_data("emoji", split)
        places = np.linspace(0, len(source) - 1, min(NUM_TRAIN, len(source))).astype(int).tolist()
        rows = [int(source.indices[place]) for place in places]
        captions = [source.captions[row]["en"] for row in rows]
        wanted = torch.tensor([names.index(source.labels[LABEL][row]) for row in rows])
        for guidance, temperature in SETTINGS:
            start = time.perf_counter()
            parts = [captions[at : at + 64] for at in range(0, len(captions), 64)]
            codes = [
                generator.sample(part, seed=seed, guidance=guidance, temperature=temperature)
                for seed, part in enumerate(parts)
            ]
            key = f"samples, {split} captions, guidance {guidance}, temperature {temperature}"
            result[key] = accuracy(model, generator.tokenizer.decode(torch.cat(codes)), wanted)
            print(f"{key}: {result[key]:.3f} ({len(captions)} in {time.perf_counter() - start:.0f} s)", flush=True)
    for name, value in result.items():
        print(f"| {name} | {100 * value:.1f} % |")
    if arguments.out:
        Path(arguments.out, "agreement.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
