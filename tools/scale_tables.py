"""The tables of large data: code shards, the same extrapolated to a billion images, and several processes."""

from collections.abc import Callable

from speed_tables import timings, where

from smalti.reports.tables import markdown_table


def code_shards() -> list[str]:
    """Rates of the engines, the cost of an image part by part, and memory."""
    results = timings("code_shards")
    if not results:
        return ["Not measured yet: `make bench-code_shards`."]
    names = ("read", "decode", "resize", "encode", "write")
    parts = [[one["workload"], *(f"{one['ms_of_an_image'][name]:.3f}" for name in names)] for one in results]
    rates = [
        [
            one["workload"],
            side,
            f"{rate:,.0f}",
            f"{one['of_bare'][side]:.0%}" if side in one["of_bare"] else "",
            f"{rate / one['rates']['local']:.0%}" if side in one["of_bare"] else "",
            f"{one['startup_seconds'][side]:.1f}" if side in one["startup_seconds"] else "",
        ]
        for one in results
        for side, rate in one["rates"].items()
    ]
    peaks = [f"{peak:,.0f} MB after {int(count):,} images" for count, peak in results[0].get("peak_mb", {}).items()]
    last = results[-1]
    told = f"{where(last)}; {last['workers']} workers of one thread, {last['rounds']} rounds"
    return [
        *markdown_table(["milliseconds of an image", *names], parts),
        "",
        *markdown_table(["workload", "engine", "images/s", "of the bare encoder", "of local", "start-up, s"], rates),
        "",
        f"Peak memory of the command: {', '.join(peaks)}. `make bench-code_shards`; {told}.",
    ]


CORE_HOUR_DOLLARS, TERABYTE_MONTH_DOLLARS = 0.04, 23.0  # assumptions, not measurements
BILLION, MACHINE_CORES = 10**9, 64


def billion() -> list[str]:
    """An extrapolation of what was measured to a billion images."""
    results = timings("code_shards")
    if not results:
        return ["Not extrapolated yet: `make bench-code_shards`."]
    rows = []
    for one in results:
        cost = one["ms_of_an_image"]
        hours = sum(cost[name] for name in ("read", "decode", "resize", "encode", "write")) * BILLION / 3.6e6
        terabytes = cost["bytes_of_codes"] * BILLION / 1e12
        rows.append(
            [
                one["workload"],
                f"{hours:,.0f}",
                f"{hours / MACHINE_CORES / 24:,.1f}",
                f"{hours / MACHINE_CORES / 100:,.1f}",
                f"{terabytes:,.2f}",
                f"{hours * CORE_HOUR_DOLLARS:,.0f}",
                f"{terabytes * TERABYTE_MONTH_DOLLARS:,.0f}",
            ]
        )
    header = ["a billion images", "core hours", f"days of one machine of {MACHINE_CORES} cores", "hours of 100 of them",
              "TB of codes", "$ of cores", "$ a month of storage"]  # fmt: skip
    assumed = f"a core hour of ${CORE_HOUR_DOLLARS:.2f} and a terabyte month of ${TERABYTE_MONTH_DOLLARS:.0f}"
    return [
        *markdown_table(header, rows),
        "",
        "Extrapolated, not run: the cost of an image above times a billion, cores as fast as the one that was "
        f"measured, no waiting for storage or network, {assumed} (assumed, not quoted). Codes are counted "
        "as they are in memory, without compression; keys, labels and captions come on top.",
    ]


def scaling() -> list[str]:
    """What a second process adds."""
    results = timings("scaling")
    if not results:
        return ["Not measured yet: `make bench-scaling`."]
    rows = [
        [
            one["workload"],
            f"{one['several']:,.0f}",
            f"{one['one']:,.0f} ({one['ratio']:.2f} times, {one['range'][0]:.2f} to {one['range'][1]:.2f})",
            f"{one['one_of_each']:,.0f} ({one['ratio_of_each']:.2f} times, "
            f"{one['range_of_each'][0]:.2f} to {one['range_of_each'][1]:.2f})",
        ]
        for one in results
    ]
    header = ["workload", "images/s", "one process, the same batch", "one process, the batch of each"]
    told = f"{where(results[-1])}; {results[-1]['rounds']} rounds in rotated order"
    return [*markdown_table(header, rows), "", f"`make bench-scaling`; {told}."]


TABLES: dict[str, Callable[[], list[str]]] = {"code_shards": code_shards, "billion": billion, "scaling": scaling}
