"""Routes of priors: sample, complete, surprise."""

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from smalti.configs import from_dict
from smalti.errors import SmaltiError
from smalti.generate.generator import Generator, as_prompts
from smalti.modes import evaluating
from smalti.priors.sampling import Progress
from smalti.ranges import NotNegative, Range
from smalti.server.bodies import grid_in, json_body, png_of, values_of
from smalti.server.limits import Limits, body_of
from smalti.server.served import Served, chosen
from smalti.server.streams import NDJSON, streamed

if TYPE_CHECKING:
    from fastapi import APIRouter

Seed = Annotated[int, Range(0, (1 << 63) - 1)]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the codes are given.

    Attributes:
        text: for a prior with text.
        label: for a prior with labels.
    """

    text: str | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling(Condition):
    """A body of /v1/sample.

    Attributes:
        num: images.
        seed: of the random numbers.
        temperature: 0 is greedy.
        top_k: of the most likely codes only; null is all.
        top_p: of the smallest set of codes with this probability; null is all.
        guidance: classifier-free; 1 is none.
        rounds: of a masked prior.
    """

    num: Annotated[int, Range(1)] = 1
    seed: Seed = 0
    temperature: NotNegative = 1.0
    top_k: Annotated[int, Range(1)] | None = None
    top_p: Annotated[float, Range(0, 1, above=True)] | None = None
    guidance: Annotated[float, Range(0, 100)] = 1.0
    rounds: Annotated[int, Range(1, 1 << 12)] | None = None


@dataclass(frozen=True, kw_only=True)
class Completion(Sampling):
    """A body of /v1/complete.

    Attributes:
        codes: (h, w), or (q, h, w), of the prior's grid.
        keep: (h, w) of booleans, true where the codes stay.
    """

    codes: list[Any]
    keep: list[list[bool]]


@dataclass(frozen=True, kw_only=True)
class Surprise(Condition):
    """A body of /v1/surprise.

    Attributes:
        codes: (h, w), or (q, h, w), of the prior's grid.
    """

    codes: list[Any]


def routes(served: Served) -> "APIRouter":
    """Codes from nothing or from a condition, the rest of a grid, and how little a grid was expected."""
    from fastapi import APIRouter, Query, Request
    from fastapi.responses import StreamingResponse

    named: Any = Query(None, max_length=200, description="a prior of /v1/models; by default the first")
    router, limits = APIRouter(), served.limits
    lines: dict[str, Any] = {"response_class": StreamingResponse, "responses": {200: {"content": {NDJSON: {}}}}}

    @router.post("/sample", openapi_extra=json_body(Sampling), summary="Codes and images of a prompt", **lines)
    async def sample(request: Request, model: str | None = named) -> StreamingResponse:
        own, body = chosen(served.priors, model), await body_of(request, limits)

        def work(progress: Progress) -> dict[str, Any]:
            return _sampled(own, from_dict(Sampling, values_of(body), ""), limits, progress)

        return await streamed(request, served, work)

    @router.post("/complete", openapi_extra=json_body(Completion), summary="Codes, some of them sampled anew", **lines)
    async def complete(request: Request, model: str | None = named) -> StreamingResponse:
        own, body = chosen(served.priors, model), await body_of(request, limits)

        def work(progress: Progress) -> dict[str, Any]:
            wanted = from_dict(Completion, values_of(body), "")
            known = {"known": _codes(own, wanted.codes), "mask": _mask(own, wanted.keep)}
            return _sampled(own, wanted, limits, progress, **known)

        return await streamed(request, served, work)

    @router.post("/surprise", openapi_extra=json_body(Surprise), summary="Bits of each code, given those before it")
    async def surprise(request: Request, model: str | None = named) -> dict[str, Any]:
        own, body = chosen(served.priors, model), await body_of(request, limits)
        return await served.turns.take(lambda: _surprise(own, from_dict(Surprise, values_of(body), ""), limits))

    return router


def _sampled(own: Generator, wanted: Sampling, limits: Limits, progress: Progress, **known: Tensor) -> dict[str, Any]:
    """The last line: codes as /v1/decode takes them, and PNG files in base64."""
    height, width = own.tokenizer.preprocessing.size
    if wanted.num * height * width > limits.pixels:
        raise SmaltiError(
            f"num: {wanted.num} images have more than the {limits.pixels:,} pixels that are made at a time"
        )
    _check_numbers(own, wanted.num, limits)
    codes = own.sample(
        own.prompt(wanted.text, wanted.label),
        wanted.num,
        seed=wanted.seed,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        guidance=wanted.guidance,
        steps=wanted.rounds,
        progress=progress,
        **known,
    )
    images = [base64.b64encode(png_of(image)).decode() for image in own.tokenizer.decode(codes).split(1)]
    return {"codes": own.tokenizer.stacked(codes).tolist(), "images": images}


@torch.inference_mode()
def _surprise(own: Generator, wanted: Surprise, limits: Limits) -> dict[str, Any]:
    """Bits in the form of the codes, and their sum over the image."""
    _check_numbers(own, 1, limits)
    condition = own.condition(as_prompts(own.prompt(wanted.text, wanted.label)))
    nats = evaluating(own.model.prior).nll_of_codes(_codes(own, wanted.codes)[None], condition)
    bits = own.tokenizer.stacked(nats.double() / math.log(2))[0]
    return {"bits": bits.tolist(), "total": bits.sum().item()}


def _codes(own: Generator, value: list[Any]) -> Tensor:
    """Codes of a body in the prior's grid (h, w)."""
    (rows, columns), beside = own.model.config.grid, own.tokenizer.beside
    shape = (rows, columns) if beside == 1 else (beside, rows, columns // beside)
    return own.tokenizer.laid(grid_in(value, "codes", shape)[None])[0]


def _mask(own: Generator, value: list[list[bool]]) -> Tensor:
    (rows, columns), beside = own.model.config.grid, own.tokenizer.beside
    return grid_in(value, "keep", (rows, columns // beside)).bool().repeat_interleave(beside, dim=1)


def _check_numbers(own: Generator, num: int, limits: Limits) -> None:
    """Hold the logits of so many images against the limits.

    Raises:
        SmaltiError: they are too many.
    """
    size = own.model.prior.num_codes * own.model.prior.codebook_size
    if num * size > limits.logits:
        raise SmaltiError(
            f"num: {num} images have {num} x {size:,} logits; at most {limits.logits:,} are computed at a time"
        )
