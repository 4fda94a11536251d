"""What waits for the same is done together, in bounds; a batch gives what each of its members would get alone."""

import asyncio
import io
import json
import threading
from contextlib import asynccontextmanager

import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.server.batches import Batches, in_batches
from smalti.server.limits import Limits, Refused
from smalti.server.turns import Turns


@asynccontextmanager
async def held(turns):
    """The thread is busy within."""
    begun, gate = threading.Event(), threading.Event()
    first = asyncio.create_task(turns.take(lambda: begun.set() or gate.wait()))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    try:
        yield
    finally:
        gate.set()
        assert await first


def test_what_waits_for_the_same_is_one_call_and_the_rest_keeps_its_order():
    calls = []

    def double(values):
        calls.append(values)
        return [2 * value if value != 3 else SmaltiError("no threes") for value in values]

    async def ask():
        turns = Turns(waiting=9)
        assert await turns.share(double, 1) == 2
        async with held(turns):
            asked = [asyncio.create_task(turns.share(double, value)) for value in (2, 3)]
            asked.append(asyncio.create_task(turns.take(lambda: calls.append("another") or 7)))
            asked.append(asyncio.create_task(turns.share(double, 4)))
            await asyncio.sleep(0)
            assert turns.count == 4
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [str(result) for result in asyncio.run(ask())] == ["4", "no threes", "7", "8"]
    assert calls == [[1], [2, 3, 4], "another"]


def test_each_result_is_handed_on_as_it_comes_and_a_failure_is_that_of_the_rest():
    gate = threading.Event()

    def slow(values):
        yield values[0]
        assert gate.wait(5)
        raise SmaltiError("broken")

    async def ask():
        turns = Turns(waiting=9)
        async with held(turns):
            first, second = (asyncio.create_task(turns.share(slow, value)) for value in (1, 2))
            await asyncio.sleep(0)
        assert await first == 1 and not second.done()
        gate.set()
        with pytest.raises(SmaltiError, match="broken"):
            await second

    asyncio.run(ask())


def test_waiting_is_bounded_in_number_and_time_and_ends_with_the_server():
    async def ask():
        turns = Turns(waiting=2, seconds=0.05)
        async with held(turns):
            waits = [asyncio.create_task(turns.take(lambda: 1)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Refused, match="try again in a moment") as refused:
                await turns.take(lambda: 2)
            assert refused.value.status == 429
            for late in await asyncio.gather(*waits, return_exceptions=True):
                assert late.status == 503 and "0.05 seconds" in str(late)
            gone = asyncio.create_task(turns.take(lambda: 1 / 0))
            await asyncio.sleep(0)
            gone.cancel()
        assert await turns.take(lambda: 7) == 7
        async with held(turns):  # which is finished
            waits = asyncio.create_task(turns.take(lambda: 1))
            await asyncio.sleep(0)
            turns.end()
            with pytest.raises(Refused, match="the server ends"):
                await waits
        with pytest.raises(Refused, match="the server ends"):
            await turns.take(lambda: 1)

    asyncio.run(ask())


NETWORKS = {"kind": "residual", "stride": 4, "width": 16, "depth": 1}
BOTTLENECKS = {
    "vector_quantizer": {"codebook_size": 512, "code_dim": 4, "start": "random"},
    "categorical": {"codebook_size": 512, "code_dim": 4},
    "fsq": {"levels": [8, 8, 8]},
    "residual_quantizer": {"num_codebooks": 2, "codebook_size": 64, "code_dim": 4, "quantizer": {"start": "random"}},
}


def png(seed, size):
    file = io.BytesIO()
    Image.fromarray(draw_image(seed, size)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_a_batch_gives_what_each_would_get_alone_also_beside_what_is_wrong(kind):
    torch.manual_seed(0)
    bottleneck, reading = {"kind": kind, **BOTTLENECKS[kind]}, Preprocessing(image_size=32)
    model = Autoencoder(AutoencoderConfig(networks=NETWORKS, bottleneck=bottleneck, preprocessing=reading)).eval()
    batches = Batches(model, Limits(pixels=1 << 12))
    files = [png(seed, size) for seed in range(6) for size in ((32, 32), (18, 27), (40, 24))]
    files[4:4] = [b"no image", png(9, (65, 65))]
    encoded = [*batches.encode(files)]
    bodies = [json.dumps(own).encode() for own in encoded if isinstance(own, dict)]
    bodies[2:2] = [b"{", json.dumps({"codes": json.loads(bodies[0])["codes"], "size": [999, 1]}).encode()]
    first = torch.tensor(json.loads(bodies[0])["codes"])
    bodies.insert(7, json.dumps({"codes": (-1 - first).tolist()}).encode())
    for act, values in (("encode", files), ("reconstruct", files), ("decode", bodies)):
        together = [*getattr(batches, act)(values)]
        alone = [next(iter(getattr(batches, act)([value]))) for value in values]
        assert [*map(str, together)] == [*map(str, alone)]
        assert 2 <= sum(isinstance(own, SmaltiError) for own in together) <= 3


def test_a_batch_has_at_most_so_many_pixels():
    calls = []
    values = [3, 4, 9, Exception("wrong"), 1, 2, 8]
    found = [*in_batches(values, lambda value: value, lambda batch: calls.append(batch) or batch, most=8)]
    assert found == values and calls == [[3, 4], [9], [1, 2], [8]]
