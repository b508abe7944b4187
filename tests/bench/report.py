"""The benchmark's results as JSON, a table in Markdown, and a chart; and the machine that they were measured on."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from worker.inference.cores import available_cores

Results = dict[str, Any]


def write_report(results: Results, folder: Path) -> str:
    """Write bench.json, table.md and rates.png, and return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")
    table = "\n".join(["| what | figure | in ratios |", "|---|---|---|", *_rows(results)])
    (folder / "table.md").write_text(table + "\n", "utf-8")
    _draw(results, folder / "rates.png")
    return table


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    info = open("/proc/cpuinfo", encoding="utf-8").read() if os.path.exists("/proc/cpuinfo") else ""  # noqa: PTH110, PTH123, SIM115
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": [each for each in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f" {each}" in flags],
        "cores": available_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _rows(results: Results) -> Iterator[str]:
    ceiling = results.get("ceiling", {}).get("per_s")
    worker = results.get("worker", {}).get("per_s")
    if ceiling:
        one = results["ceiling"]["one_thread_per_s"]
        yield _row("classifier alone, in process (the ceiling)", _rate(ceiling), "1")
        yield _row("the same on one thread", _rate(one), _ratio(one, ceiling))
    if worker:
        found = results["worker"]
        yield _row(
            "worker on Kafka, cache off, draining a filled topic", _rate(worker), f"{_ratio(worker, ceiling)} of the ceiling"
        )
        yield _row("its memory (RSS); start to partitions assigned", f"{found['rss_mb']:.0f} MB; {found['ready_s']:.1f} s", "")
        yield _row("its CPU", f"{found['cpu_s_per_million']:.0f} s a million messages", "")
    for name, each in results.get("latency", {}).items():
        when = "a lone message, idle worker" if name == "lone" else f"at {name} of the drain rate"
        yield _row(f"latency, {when}", f"p50 {each['p50_ms']:.0f}, p95 {each['p95_ms']:.0f}, p99 {each['p99_ms']:.0f} ms", "")
    yield from _comparisons(results, ceiling, worker)


def _comparisons(results: Results, ceiling: float | None, worker: float | None) -> Iterator[str]:
    if "zipf" in results:
        on, off = results["zipf"]["cache_on"]["per_s"], results["zipf"]["cache_off"]["per_s"]
        yield _row("chat-like mix of repeats, cache on", _rate(on), f"{_ratio(on, off)} of cache off")
    scaling = results.get("scaling", {})
    for name, each in scaling.items():
        yield _row(f"workers: {name} each", _rate(each["per_s"]), _ratio(each["per_s"], next(iter(scaling.values()))["per_s"]))
    for name, each in results.get("peers", {}).items():
        figure = f"{_rate(each['per_s'])}; {each['rss_mb']:.0f} MB"
        yield _row(name, figure, f"the worker is {_ratio(worker, each['per_s'])} times as fast")
    if "classify" in results:
        found = results["classify"]
        what = f"`classify --json`, {found['lines']:,} lines"
        yield _row(what, _rate(found["per_s"]), f"{found['to_ceiling']:.2f} of the ceiling")
    for characters, rate in results.get("by_characters", {}).items():
        yield _row(f"classifier, texts of {characters} characters", _rate(rate), _ratio(rate, ceiling))


def _rate(per_s: float) -> str:
    return f"{per_s:.0f} messages/s"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(value: float | None, to: float | None) -> str:
    return f"{value / to:.2f}" if value and to else "-"


def _draw(results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = {
        "classifier alone": results.get("ceiling", {}).get("per_s"),
        "worker on Kafka": results.get("worker", {}).get("per_s"),
    }
    rates |= {name: each["per_s"] for name, each in results.get("peers", {}).items()}
    shown = {name: rate for name, rate in rates.items() if rate}
    figure, axes = plt.subplots(figsize=(8, 0.5 + 0.45 * max(1, len(shown))))
    bars = axes.barh(list(shown), list(shown.values()), color=["#8a8a8a", *["#2f6f9f"] * (len(shown) - 1)])
    axes.bar_label(bars, fmt="%.0f", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(
        f"messages a second, {results['machine']['cores']} cores, {results['mean_characters']:.0f} characters on average"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
