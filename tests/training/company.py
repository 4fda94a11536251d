"""What one of several processes does in tests/training/test_distributed.py.

python -m training.company WHAT OUT [MORE ...]
"""

import contextlib
import copy
import functools
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from laws.members import MEMBERS, SIDE, D, make
from laws.test_layers import codebooks
from smalti import processes
from smalti.ops.precision import arithmetic
from smalti.training import loop
from smalti.training.experiment import LossConfig, PhotoConfig
from smalti.training.state import TrainState
from smalti.training.stepping import Trainer
from training.test_loop import small

ROOT = Path(__file__).parents[2]
STEPS = int(os.environ.get("STEPS", 20))
SEED = int(os.environ.get("SEED", 0))
OTHER_SEEDS = {"residual": 1}  # where rounding decides between two codes on the way
WEIGHTS = LossConfig(penalty_weights={"codebook": 1.0, "own": 1.0})


def spawn(count, *words, **environment):
    """Start some processes of Python that know of each other, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", **environment}
    company = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([sys.executable, *map(str, words)], env=common | own, **options)
        for own in (
            [company | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)] if count > 1 else [{}]
        )
    ]


def command(count, *words):
    """Start a command line of smalti in some processes."""
    return spawn(count, "-m", "smalti", *words)


def ended(started):
    """The exit status of each process, and what it has said on stderr."""
    said = [process.communicate(timeout=300)[1] for process in started]
    return [process.returncode for process in started], said


def together(count, what, out, *more, **environment):
    """What each of some processes has found."""
    status, said = ended(spawn(count, "-m", "training.company", what, out, *more, **environment))
    assert status == [0] * count, "\n".join(reversed(said))
    return [torch.load(Path(out) / f"{what}-{count}-{rank}.pt") for rank in range(count)]


# ------------------------------------------------------------------ somebody else's loop


class Stranger(nn.Module):
    """Somebody's network with a layer of ours."""

    def __init__(self, layer):
        super().__init__()
        self.encode, self.layer = nn.Conv2d(D, layer.in_channels, 1), layer
        self.decode = nn.Conv2d(layer.out_channels, D, 1)

    def forward(self, images, mask=None):
        out = self.layer(self.encode(images), mask)
        return self.decode(out.latents).square().mean(), out


def strange(name):
    """Twenty steps of DistributedDataParallel as it is, on images of its own; the layer's state and its restarts."""
    torch.manual_seed(processes.rank() if name != "residual" else 0)  # also where weights begin unlike
    layer, restarts = make(name, trained=False), 0
    for codebook in codebooks(layer):
        codebook.restart_below, codebook.decay = 0.9 if codebook.restart_below else 0.0, 0.9
    model = DistributedDataParallel(Stranger(layer))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.manual_seed(100 + processes.rank())
    for step in range(20):
        images = torch.randn(4, D, SIDE, SIDE) + processes.rank()
        mask = torch.ones(4, SIDE, SIDE, dtype=torch.bool)
        if step in (0, 3) and processes.rank() == 1:
            mask[:] = False  # nothing to learn from in this process
        if step == 7 and processes.rank() == 1 and codebooks(layer) and layer.codebook_size and "vq" in name:
            images[0] = torch.nan  # nor, in any, from this step
        loss, out = model(images, mask)
        loss = loss + out.kl.mean() + sum(out.penalties.values())
        if out.log_prob is not None:
            loss = loss + out.log_prob.mean()
        loss.backward()
        if step == 7:
            optimizer.zero_grad()
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0 and processes.is_first():  # what the first process does alone
            layer.state_dict()
            with torch.no_grad():
                layer(layer.eval() and torch.randn(2, layer.in_channels, SIDE, SIDE))
            layer.train()
        restarts += int(layer.update().get("restarted", 0))
    return {"state": copy.deepcopy(layer.state_dict()), "restarts": restarts}


def strangers(_):
    """Every bottleneck, in one pair of processes."""
    torch.distributed.init_process_group("gloo")
    try:
        return {name: strange(name) for name in MEMBERS}
    finally:
        torch.distributed.destroy_process_group()


# ------------------------------------------------------------------ our loop


def experiments(data, tokenizer):
    """Trainings of everything that has a state, by name."""
    rule = {"steps": STEPS, "batch_size": 12, "validate_every": 0, "learning_rate": 3e-4, "seed": SEED}
    found = {}
    for name, spec in MEMBERS.items():
        own = rule | {"seed": OTHER_SEEDS.get(name, SEED)}
        plain = small("ae", data, **own, likelihood="gaussian")
        found[name] = replace(plain, model=replace(plain.model, bottleneck=spec), loss=WEIGHTS)
    noisy = {"noise": "gaussian", "noise_level": 0.2, "noise_lowest": 0.0, "augment": "flip_shift"}
    found["noise and shifts"] = small("vqvae", data, **rule, **noisy)
    found["accumulated"] = small("vae", data, **rule, accumulate=2)
    photo = PhotoConfig(adversarial_weight=0.1, adversarial_start=0.2, discriminator_width=4, lecam_weight=0.1,
                        discriminator_window=12)  # fmt: skip
    found["adversarial"] = replace(small("vqvae", data, **rule), photo=photo)
    network = {"tokenizer": str(tokenizer), "data": str(data), "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    settings = {"steps": STEPS, "batch_size": 12, "validate_every": 0, "precision": "fp32"}
    found["transformer"] = loop_recipe("transformer")(**network, label="class").with_settings(**settings)
    found["maskgit"] = loop_recipe("maskgit")(**network).with_settings(**settings)
    return found


def loop_recipe(name):
    from smalti.recipes import RECIPES

    return RECIPES[name]


def trained(experiment, folder):
    """The terms of each step, the model and the usage after some steps that nobody records."""
    folder.mkdir(exist_ok=True, parents=True)
    torch.manual_seed(0)
    task = loop._task(experiment, "cpu", folder, False)
    state = TrainState(task.model, experiment.optimizer)
    trainer, terms = Trainer(experiment, task, state, functools.partial(arithmetic, "fp32", "cpu")), []
    with contextlib.closing(task.batches(0)) as batches:
        for step in range(experiment.run.steps):
            terms.append({name: value.item() for name, value in trainer.step(batches, step).terms.items()})
    codes = task.model.encode(task.shown) if getattr(task, "usage", None) else torch.empty(0)
    return {"terms": terms, "state": task.model.state_dict(), "extra": task.state(), "codes": codes}


def ours(out, data, tokenizer, *names):
    """Every training, in one group of processes."""
    with processes.joined():
        chosen = experiments(data, tokenizer)
        return {name: trained(chosen[name], Path(out) / name) for name in names or chosen}


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, out, *more = sys.argv[1:]
    found = {"strangers": strangers, "ours": ours}[what](out, *more)
    rank, world = os.environ.get("RANK", 0), os.environ.get("WORLD_SIZE", 1)
    torch.save(found, Path(out) / f"{what}-{world}-{rank}.pt")
