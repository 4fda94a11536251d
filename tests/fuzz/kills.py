"""The kill law: a run that is killed at any file operation and then called again ends with the same bytes.

A run is trained to its end, and before each of its operations on files (every opening for writing, rename, removal, new
folder, change of rights, and every fsync) its folder is copied: what a process that dies there leaves. A line that is
being appended to the log is cut off in its middle. Each copy is then trained to the end, in a process of its own, and
every file of it is compared with the first run's. A death before an operation is a death after the one before it.

    python -m tests.fuzz.kills                     every death of every run
    python -m tests.fuzz.kills vqvae prior=5       every one of this run, every fifth of that one
"""

import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from smalti.recipes import pixelcnn, transformer, vqvae
from smalti.reports.model_card import model_card
from smalti.training.experiment import Training
from smalti.training.log import read_metrics
from smalti.training.loop import train

from ..conftest import draw_image
from .harness import HUNG_SECONDS

STEPS, CHECKPOINTS = 60, 6
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TORN = b'{"step": 7, "lo'


def images(folder: Path) -> Path:
    """A data set of small pictures with captions."""
    from PIL import Image

    folder.mkdir(parents=True)
    for split, count in (("train", 12), ("validation", 4)):
        (folder / split).mkdir()
        for index in range(count):
            Image.fromarray(draw_image(index, (16, 16))).save(folder / split / f"{split}{index}.png")
    rows = [f"{path.relative_to(folder)},picture {path.stem}" for path in sorted(folder.rglob("*.png"))]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
    return folder


def runs(data: Path, tokenizer: Path, steps: int = STEPS) -> dict[str, Callable[[], Training]]:
    """The experiments under the law, by name; those of priors need the tokenizer."""
    every = steps // CHECKPOINTS
    settings = {"steps": steps, "batch_size": 2, "log_every": every // 2, "checkpoint_every": every, "device": "cpu",
                "sample_every": steps // 2, "validate_every": every}  # fmt: skip
    small = {"image_size": 16, "width": 4, "codebook_size": 8, "code_dim": 4, "warmup": 2, "data": str(data)}
    of_codes = {"tokenizer": str(tokenizer), "data": str(data), "warmup": 2}
    narrow = {"width": 8, "layers": 1, "heads": 1}
    return {
        "vqvae": lambda: vqvae(**small).with_settings(**settings),
        "best": lambda: vqvae(**small, learning_rate=0.05).with_settings(**settings, keep="best"),
        "events": lambda: vqvae(**small).with_settings(**settings, log="tensorboard"),
        "prior": lambda: pixelcnn(**of_codes, channels=4, layers=1).with_settings(**settings),
        "text": lambda: transformer(**of_codes, **narrow, text="en", text_vocabulary=260).with_settings(**settings),
    }


def in_child(job: Callable[[], None]) -> int:
    """Run a job in a process of its own; its exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fork and threads: there is one here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            job()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.__stderr__)
        finally:
            os._exit(status)
    deadline = time.monotonic() + HUNG_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9


def watched(folder: Path, count: Callable[[str, str], None]) -> None:
    """Call `count` with every operation on files of a folder and the path, before it happens; there is no way back.

    No power is lost here, so that fsync is counted and not done, which takes most of the time.
    """
    own = str(folder)

    def hook(event: str, arguments: tuple) -> None:
        path = str(arguments[0]) if arguments and isinstance(arguments[0], str | os.PathLike) else ""
        if path.startswith(own) and (event in EVENTS or (event == "open" and arguments[2] & WRITING)):
            count(event, path)

    sys.addaudithook(hook)
    os.fsync = lambda file: count("fsync", "")


def trained(experiment: Callable[[], Training], run: Path, deaths: Path | None = None, every: int = 1) -> int:
    """Train in a process of its own; its exit status.

    Before every operation, or every so many, the folder is copied to DEATHS/NUMBER.
    """

    def job() -> None:
        number, busy = 0, False

        def count(event: str, path: str) -> None:
            nonlocal number, busy
            if busy or deaths is None:
                return
            number += 1
            if number % every == 0 and run.exists():
                busy, copy = True, shutil.copytree(run, deaths / f"{number:04}")
                if path.endswith("metrics.jsonl") and event == "open":
                    with open(copy / "metrics.jsonl", "ab") as log:
                        log.write(TORN)
                busy = False

        watched(run, count)
        train(experiment(), run, card=model_card, progress=False)

    return in_child(job)


def contents(run: Path) -> dict[str, object]:
    """What must be the same in two runs, by the names of their files."""
    found: dict[str, object] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if name == "environment.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "command"}
        elif name == "metrics.jsonl":
            lines = [{**record, "images_per_second": 0} for record in read_metrics(path)]
            found[name] = (lines, len(path.read_bytes().splitlines()))
        elif name.startswith("tensorboard/"):
            found["tensorboard"] = events(run / "tensorboard")
        else:
            found[name] = path.read_bytes()
    return found


def events(folder: Path) -> dict[str, dict[int, float]]:
    """The numbers in event files, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    names = [name for name in reader.Tags()["scalars"] if name != "images_per_second"]
    return {name: {event.step: event.value for event in reader.Scalars(name)} for name in names}


def faults(experiment: Callable[[], Training], folder: Path, every: int = 1) -> Iterator[str]:
    """Let a run die before every operation, or every so many; what is another than it should be, or "the same"."""
    whole, deaths, run = folder / "whole", folder / "deaths", folder / "run"
    if status := trained(experiment, whole, deaths, every):
        yield f"FAULT: the run itself ended with {status}"
        return
    expected = contents(whole)
    for death in sorted(deaths.iterdir()):
        death.rename(run)  # at the depth of the first, since a prior names its tokenizer from there
        if status := trained(experiment, run):
            yield f"FAULT: killed before operation {death.name}, the next call ended with {status}"
        else:
            found = contents(run)
            other = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
            yield f"FAULT: killed before operation {death.name}, other: {other}" if other else "the same"
        shutil.rmtree(run)


def prepared(folder: Path, steps: int = STEPS) -> dict[str, Callable[[], Training]]:
    """Data, a tokenizer, and the experiments on them."""
    data, tokenizer = images(folder / "data"), folder / "tokenizer"
    made = runs(data, tokenizer, steps)
    short = {"steps": 2, "checkpoint_every": 2, "sample_every": 0, "validate_every": 0}
    train(made["vqvae"]().with_settings(**short), tokenizer, progress=False)  # here, so that children need not import
    return made


def main(names: list[str]) -> int:
    """Print how many deaths of each run were tried; exit status 1: a fault."""
    count = 0
    with tempfile.TemporaryDirectory() as place:
        made = prepared(Path(place))
        for argument in names or made:
            name, _, number = argument.partition("=")
            (Path(place) / name).mkdir()
            deaths = faults(made[name], Path(place) / name, int(number or 1))
            became = list(tqdm(deaths, name, mininterval=5, file=sys.stderr))
            wrong = [line for line in became if line != "the same"]
            print(f"{name}: {len(became)} deaths, {len(wrong)} faults", *wrong, sep="\n  ")
            count += len(wrong)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
