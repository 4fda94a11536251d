"""The verb `serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from smalti.errors import SmaltiError
from smalti.ranges import Range

if TYPE_CHECKING:
    from smalti.models.autoencoder import Autoencoder
    from smalti.server.served import Served

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    runs: list[str],
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Range(1, 65535)] = 8000,
    token: str | None = None,
    no_page: bool = False,
) -> None:
    """Serve tokenizers and priors over HTTP: the studio, and an API under /v1 that /openapi.json describes.

    Args:
        runs: the folders of trained models, or owner/name on the hub; requests name them by the last part. The
            tokenizer of a prior is served too, by default from where the prior says.
        host: what to listen at; beyond this machine a token is needed.
        port: of TCP.
        token: that requests to the API have to bear, as in Authorization: Bearer TOKEN.
        no_page: the API alone, which needs neither ONNX nor its runtime for browsers.
    """
    if host not in LOOPBACK and not token:
        raise SmaltiError(f"--host {host} is reached from other machines: give --token, or listen at {LOOPBACK[0]}")
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise SmaltiError(f"a server needs {error.name}: pip install 'smalti[serve]'") from error
    from smalti.apps.output import say
    from smalti.server.app import application

    served = opened(runs)
    pages = {} if no_page else {name: _page(model, name) for name, model in served.tokenizers.items()}
    say(f"smalti: http://{host}:{port} serves {', '.join([*served.tokenizers, *served.priors])}; Ctrl+C ends it")
    app = application(served, pages, token)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=5,
                limit_concurrency=256, h11_max_incomplete_event_size=1 << 16, server_header=False)  # fmt: skip


def opened(runs: list[str]) -> "Served":
    """The models of some runs; priors of one tokenizer share it.

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
    models = {name: open_prior(run, "cpu") for name, run in named.items() if what_is(str(find_folder(run))) == "prior"}
    tokenizers = {name: Autoencoder.from_pretrained(run) for name, run in named.items() if name not in models}
    for tokenizer in tokenizers.values():
        _ = tokenizer.codes_bottleneck  # a SmaltiError where there are none
    priors = {}
    for name, model in models.items():
        own = [one for one in tokenizers.values() if one.source_hash == model.config.tokenizer_hash]
        if not own:
            own = [open_trained(model.config).model]
            place = Path(model.config.tokenizer).resolve().name
            tokenizers[f"{name}-{place}" if place in named or place in tokenizers else place] = own[0]
        priors[name] = Generator(model, TrainedTokenizer(own[0]))
    return Served(tokenizers, priors)


def _named(runs: list[str]) -> dict[str, str]:
    """The runs by the last part of their names.

    Raises:
        SmaltiError: none, or two of one name.
    """
    if not runs:
        raise SmaltiError("there is no run to serve; name the folder of one at least")
    found: dict[str, str] = {}
    for run in runs:
        name = Path(run).resolve().name if Path(run).is_dir() else run.rpartition("/")[2]
        if name in found:
            raise SmaltiError(f"{found[name]} and {run} have one name, {name}; serve one, or rename the folder")
        found[name] = run
    return found


def _page(model: "Autoencoder", name: str) -> str:
    """The studio of a model; made once, it is kept in the cache."""
    from smalti.files import atomic_folder
    from smalti.studio import page, runtime

    folder = runtime.cache().parent / "studio" / page.version_of(model, name)
    if not (folder / page.FILE).is_file():
        with atomic_folder(folder) as temporary:
            page.write(model, temporary, name)
    return (folder / page.FILE).read_text(encoding="utf-8")
