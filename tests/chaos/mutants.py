"""Runs the suite against deliberate bugs and tells by which law each is caught: `python -m tests.chaos.mutants [NAME ...]`."""

import json
import sys

import typer

from tests.chaos.mutations import MUTATIONS
from tests.chaos.plan import Options
from tests.chaos.results import RESULTS, result_as_json
from tests.chaos.run import RunResult, run_chaos

_MESSAGES = 4000
_MINUTES_A_FAULT = 0.3
_SEED = 5


def options_for(name: str) -> Options:
    """Return a short run with a bug in every worker, and the faults that bring it out."""
    bug = MUTATIONS[name]
    faults = bug.faults or ("model_slow",)
    return Options(
        messages=_MESSAGES,
        faults=len(faults),
        seed=_SEED,
        minutes=_MINUTES_A_FAULT * len(faults),
        delivery=bug.delivery,
        workers=2,
        mutation=name,
        kinds=tuple(dict.fromkeys(faults)),
    )


def laws_that_caught(result: RunResult) -> set[str]:
    """Return the laws that the bug must break and that were found broken."""
    return set(result.verdict.broken) & set(MUTATIONS[result.options.mutation].breaks)


def main() -> None:
    """Run the named mutants, or all; exit code 1 if one goes unnoticed."""
    unnoticed = []
    for name in sys.argv[1:] or MUTATIONS:
        result = run_chaos(options_for(name), say=typer.echo)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"mutation-{name}.json"
        path.write_text(json.dumps(result_as_json(result), ensure_ascii=False, indent=1) + "\n", "utf-8")
        caught = laws_that_caught(result)
        typer.echo(
            f"{name}: {'caught by ' + ', '.join(sorted(caught)) if caught else 'UNNOTICED'}; {dict(result.verdict.broken)}"
        )
        unnoticed += [] if caught else [name]
    sys.exit(f"not caught: {', '.join(unnoticed)}" if unnoticed else 0)


if __name__ == "__main__":
    main()
