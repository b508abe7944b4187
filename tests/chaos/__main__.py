"""`python -m tests.chaos`: one seeded chaos run, told as it goes, ending in a table and a JSON file; `make chaos`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tests.chaos.ledger import LAWS
from tests.chaos.plan import WORKERS, Options
from tests.chaos.results import RESULTS, result_as_json, result_table
from tests.chaos.run import run_chaos


def main(
    messages: Annotated[int, typer.Option(min=100, help="messages to publish")] = 60_000,
    faults: Annotated[int, typer.Option(min=1, help="faults to make")] = 40,
    seed: Annotated[int, typer.Option(help="decides the messages, and which faults come when")] = 1,
    minutes: Annotated[
        float, typer.Option(min=0.2, help="how long to break things; settling and reading back come on top")
    ] = 8,
    delivery: Annotated[str, typer.Option(help="at_least_once or exactly_once")] = "at_least_once",
    workers: Annotated[int, typer.Option(min=1, help="workers that share the topic")] = WORKERS,
    kinds: Annotated[str, typer.Option(help="only these faults, separated by commas")] = "",
    results: Annotated[Path, typer.Option(help="folder of the JSON results")] = RESULTS,
) -> None:
    """Break things around running workers and check that no law of delivery was broken; exit code 1 if one was."""
    if delivery not in ("at_least_once", "exactly_once"):
        raise typer.BadParameter("must be at_least_once or exactly_once", param_hint="--delivery")
    chosen = tuple(kinds.split(",")) if kinds else ()
    options = Options(messages, faults, seed, minutes, delivery, workers, kinds=chosen)
    result = run_chaos(options, say=typer.echo)
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{delivery}-{seed}.json"
    path.write_text(json.dumps(result_as_json(result), ensure_ascii=False, indent=1) + "\n", "utf-8")
    typer.echo(result_table([result_as_json(result)]))
    for law, found in result.verdict.examples.items():
        typer.echo(f"BROKEN {law} ({LAWS[law]}) {result.verdict.broken[law]} times: {'; '.join(found)}")
    for each in result.trouble:
        typer.echo(f"TROUBLE {each}")
    typer.echo(f"result: {path}")
    raise typer.Exit(0 if result.is_good else 1)


if __name__ == "__main__":
    typer.run(main)
