"""Adds up the results of chaos runs and writes them as the table in docs/chaos.md: `python -m tests.chaos.results`."""

import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.mutations import MUTATIONS
from tests.chaos.plan import WORKERS, Options
from tests.chaos.run import RunResult
from tests.support.worker_process import ROOT

PAGE = ROOT / "docs" / "chaos.md"
RESULTS = ROOT / "chaos_results"
_MADE_BY = "made by `python -m tests.chaos.results`"
_LOST = ("lost",)
_ESCALATIONS = ("escalation_missing", "escalation_invented", "escalation_changed")


def result_as_json(result: RunResult) -> dict[str, Any]:
    """Return a run's result as its file holds it."""
    options, verdict = result.options, result.verdict
    return {
        "seed": options.seed,
        "delivery": options.delivery,
        "mutation": options.mutation,
        "command": command_of(options),
        "messages": verdict.positions,
        "faults": dict(sorted(result.faults.items())),
        "ends": dict(sorted(result.ends.items())),
        "copies": verdict.copies,
        "repeats": verdict.repeats,
        "escalations_expected": verdict.escalations_expected,
        "escalations_found": verdict.escalations_found,
        "escalation_repeats": verdict.escalation_repeats,
        "broken": dict(sorted(verdict.broken.items())),
        "examples": verdict.examples,
        "trouble": result.trouble,
        "restart_s": result.restart_s,
        "seconds": round(result.seconds),
        "load_after": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def command_of(options: Options) -> str:
    """Return the command that makes the same run again."""
    if options.mutation:
        return f"python -m tests.chaos.mutants {options.mutation}"
    command = f"python -m tests.chaos --messages {options.messages} --faults {options.faults} --seed {options.seed}"
    command += f" --minutes {options.minutes:g} --delivery {options.delivery}"
    command += f" --workers {options.workers}" if options.workers != WORKERS else ""
    return command + (f" --kinds {','.join(options.kinds)}" if options.kinds else "")


def result_table(results: Sequence[dict[str, Any]]) -> str:
    """Return results as Markdown: a line a run and, of several, a line for their sum by delivery."""
    lines = [
        "| delivery | seed | messages | faults | lost | repeated | other laws broken | escalations expected / found / wrong "
        "| other trouble | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(each, str(each["seed"])) for each in results]
    for delivery in sorted({each["delivery"] for each in results}):
        of_it = [each for each in results if each["delivery"] == delivery]
        if len(of_it) > 1:
            lines.append(_line(_sum(of_it), f"**all {len(of_it)}**"))
    return "\n".join(lines)


def fault_table(results: Sequence[dict[str, Any]]) -> str:
    """Return how often each fault was made, by delivery."""
    deliveries = sorted({each["delivery"] for each in results})
    counts = {
        name: sum((Counter(each["faults"]) for each in results if each["delivery"] == name), Counter()) for name in deliveries
    }
    kinds = sorted({kind for counted in counts.values() for kind in counted})
    lines = [f"| fault | {' | '.join(deliveries)} |", f"|---|{'---|' * len(deliveries)}"]
    lines += [f"| {kind} | {' | '.join(str(counts[name][kind]) for name in deliveries)} |" for kind in kinds]
    return "\n".join(lines)


def restart_table(results: Sequence[dict[str, Any]]) -> str:
    """Return how long it took from the start of all workers to the first commit, at the end of each run."""
    lines = ["| all workers were | runs | median s | longest s |", "|---|---|---|---|"]
    for how in ("stopped", "killed"):
        found = sorted(each["restart_s"][how] for each in results if each["restart_s"].get(how) is not None)
        if found:
            lines.append(f"| {how} | {len(found)} | {statistics.median(found):.1f} | {found[-1]:.1f} |")
    return "\n".join(lines)


def _sum(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"delivery": results[0]["delivery"]}
    for name in ("messages", "repeats", "escalations_expected", "escalations_found", "escalation_repeats", "seconds"):
        total[name] = sum(each[name] for each in results)
    for name in ("faults", "broken"):
        total[name] = sum((Counter(each[name]) for each in results), Counter())
    total["trouble"] = [what for each in results for what in each["trouble"]]
    return total


def _line(result: dict[str, Any], seed: str) -> str:
    broken = Counter(result["broken"])
    escalations = sum(broken[law] for law in _ESCALATIONS)
    others = [f"{law} {count}" for law, count in sorted(broken.items()) if law not in (*_LOST, *_ESCALATIONS)]
    cells = [
        result["delivery"],
        seed,
        f"{result['messages']:,}",
        str(sum(result["faults"].values())),
        str(broken["lost"]),
        f"{result['repeats'] + result['escalation_repeats']:,}",
        ", ".join(others) or "none",
        f"{result['escalations_expected']:,} / {result['escalations_found']:,} / {escalations}",
        str(len(result["trouble"])) if result["trouble"] else "none",
        f"{result['seconds'] / 60:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def mutation_table(results: Sequence[dict[str, Any]]) -> str:
    """Return by which laws each deliberate bug was caught."""
    found = {each["mutation"]: each for each in results}
    lines = ["| deliberate bug | delivery | faults | caught by (times) |", "|---|---|---|---|"]
    for name, bug in MUTATIONS.items():
        broken = found[name]["broken"] if name in found else None
        caught = (
            ", ".join(f"`{law}` ({broken[law]})" for law in bug.breaks if law in broken) if broken is not None else "not run"
        )
        faults = ", ".join(dict.fromkeys(bug.faults)) or "none needed"
        lines.append(f"| {bug.what} (`{name}`) | {bug.delivery} | {faults} | {caught or '**nothing**'} |")
    return "\n".join(lines)


def write_into_page(page: str, part: str, text: str) -> str:
    """Return a page with the text between the marks of a part."""
    begin, end = f"<!-- {part}: {_MADE_BY} -->", f"<!-- end of {part} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write the tables of the results in a folder, by default chaos_results/, into docs/chaos.md."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    every = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    results = [each for each in every if not each["mutation"]]
    commands = "\n".join(each["command"] for each in results)
    tables = [result_table(results), fault_table(results), restart_table(results), f"```sh\n{commands}\n```"]
    page = write_into_page(PAGE.read_text("utf-8"), "results", "\n\n".join(tables))
    page = write_into_page(page, "mutations", mutation_table([each for each in every if each["mutation"]]))
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
