"""The verb `serve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from smalti.errors import SmaltiError
from smalti.ranges import Range
from smalti.server.guard import LOOPBACK

if TYPE_CHECKING:
    from smalti.models.autoencoder import Autoencoder
    from smalti.server.guard import Application
    from smalti.server.limits import Limits
    from smalti.server.served import Served
    from smalti.server.turns import Turns


def serve(
    runs: list[str],
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Range(0, 65535)] = 8000,
    token: str | None = None,
    name: str | None = None,
    no_page: bool = False,
) -> None:
    """Serve tokenizers and priors over HTTP: the studio, and an API under /v1 that /docs describes.

    Args:
        runs: the folders of trained models, emoji (which comes with the package), or owner/name on the hub; requests
            name them by the last part. The tokenizer of a prior is served too, by default from where the prior says.
        host: what to listen at; beyond this machine a token is needed.
        port: of TCP; 0 is any that is free.
        token: that requests to the API have to bear, as in Authorization: Bearer TOKEN.
        name: another name that the server is addressed by, as a proxy in front of it has one: studio.example.org.
        no_page: the API alone, which needs neither ONNX nor its runtime for browsers.
    """
    if host not in LOOPBACK and not token:
        raise SmaltiError(f"--host {host} is reached from other machines: give --token, or listen at {LOOPBACK[0]}")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token and len(token) >= 8):
        raise SmaltiError("--token has at least 8 characters of ASCII and no spaces")
    named = _named(runs)
    try:
        import h11  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SmaltiError(f"a server needs {error.name}: pip install 'smalti[serve]'") from error
    import os
    import sys

    from smalti.apps.output import say
    from smalti.server.connections import Server, listening
    from smalti.server.guard import Guard
    from smalti.server.limits import Limits
    from smalti.server.opening import Opening
    from smalti.server.turns import Turns

    limits = Limits()
    turns = Turns(limits.waiting, limits.wait_seconds)
    opening = Opening({} if no_page else _kept(named), lambda: _load(runs, limits, turns, token, not no_page))
    guard = Guard(opening, limits, None if host not in LOOPBACK else (*LOOPBACK, *([name.lower()] if name else [])))
    server = Server(guard, opening, turns)
    try:
        place = listening(host, port)
    except OSError as error:
        remedy = "give another --port" if host in LOOPBACK else "give another --port, or a --host of this machine"
        raise SmaltiError(f"cannot listen at {host}:{port}: {error.strerror or error}; {remedy}") from error
    say(f"smalti: {_address(host, place.getsockname()[1], token)} serves {', '.join(named)}; Ctrl+C ends it")
    server.run([place])
    if opening.error is not None:
        raise opening.error
    if turns.busy or not opening.done:  # a thread that nobody waits for any longer
        sys.stderr.flush()
        os._exit(0)


def _address(host: str, port: int, token: str | None) -> str:
    """Where a browser opens it. What follows # is not sent, so that a token there gets into no log."""
    from urllib.parse import quote

    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}" + (f"/#token={quote(token)}" if token else "")


def _named(runs: list[str]) -> dict[str, str]:
    """The runs by the last part of their names.

    Raises:
        SmaltiError: none, or two of one name.
    """
    if not runs:
        raise SmaltiError("there is no run to serve; name the folder of one at least")
    from smalti.bundled import all_of

    found: dict[str, str] = {}
    every = [own for run in runs for own in all_of(run)]
    for run in every:
        name = Path(run).resolve().name if Path(run).is_dir() else run.rpartition("/")[2]
        if name in found:
            raise SmaltiError(f"{found[name]} and {run} have one name, {name}; serve one, or rename the folder")
        found[name] = run
    return found


def _kept(named: Mapping[str, str]) -> dict[str, bytes | None]:
    """The pages that were made at an earlier start, None for others: they are shown before the models are loaded."""
    from smalti.bundled import place_of
    from smalti.files import CONFIG, WEIGHTS
    from smalti.studio.kept import kept

    found: dict[str, bytes | None] = dict.fromkeys(named)
    for name, run in named.items():
        folder = Path(place_of(run))
        here = all((folder / own).is_file() for own in (CONFIG, WEIGHTS))
        if here and (file := kept(folder, name)).is_file():
            found[name] = file.read_bytes()
    return found


def _load(runs: list[str], limits: "Limits", turns: "Turns", token: str | None, with_pages: bool) -> "Application":
    """The models, the pages of the tokenizers, and the application of both."""
    from smalti.server.app import application

    served, folders = opened(runs, limits=limits, turns=turns)
    own = {name: _page(served.tokenizers[name], folder, name) for name, folder in folders.items() if with_pages}
    return application(served, own, token)


def opened(runs: list[str], **more: Any) -> tuple["Served", dict[str, Path]]:
    """The models of some runs, and where the tokenizers lie; priors of one tokenizer share it. `more` is of `Served`.

    Raises:
        SmaltiError: two of one name, a model without codes, or a prior of pixels or whose tokenizer is not here.
    """
    from smalti.apps.runs import open_prior, what_is
    from smalti.generate.generator import Generator
    from smalti.generate.tokenizer import TrainedTokenizer, open_trained
    from smalti.models.autoencoder import Autoencoder
    from smalti.pretrained import find_folder
    from smalti.server.served import Served

    named = _named(runs)
    folders = {name: find_folder(run) for name, run in named.items()}
    models = {name: open_prior(named[name], "cpu") for name, own in folders.items() if what_is(str(own)) == "prior"}
    tokenizers = {name: Autoencoder.from_pretrained(run) for name, run in named.items() if name not in models}
    for tokenizer in tokenizers.values():
        _ = tokenizer.codes_bottleneck  # a SmaltiError where there are none
    priors = {}
    for name, model in models.items():
        own = [one for one in tokenizers.values() if one.source_hash == model.config.tokenizer_hash]
        if not own:
            own, place = [open_trained(model.config).model], Path(model.config.tokenizer)
            free = place.resolve().name
            free = f"{name}-{free}" if free in named or free in tokenizers else free
            tokenizers[free], folders[free] = own[0], place
        priors[name] = Generator(model, TrainedTokenizer(own[0]))
    return Served(tokenizers, priors, **more), {name: folders[name] for name in tokenizers}


def _page(model: "Autoencoder", folder: Path, name: str) -> str:
    """The studio of a model; made once, it is kept in the cache."""
    from smalti.files import atomic_folder
    from smalti.studio import page
    from smalti.studio.kept import kept

    file = kept(folder, name)
    if not file.is_file():
        with atomic_folder(file.parent) as temporary:
            page.write(model, temporary, name)
    return file.read_text(encoding="utf-8")
