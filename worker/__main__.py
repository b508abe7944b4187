"""The command line: `python -m worker`, or `rugo-worker`.

A command ends with exit code 0, or with 1 and a sentence that says what to change.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker import __version__
from worker.core.failures import ConfigurationError, WorkerError
from worker.settings import (
    Settings,
    load_settings,
    read_escalation_policy,
    settings_in_force,
    settings_table,
    unknown_variables,
)

if TYPE_CHECKING:
    from worker.dlq import DeadLetters

DEMO_CHATS = Path(__file__).with_name("demo_chats.jsonl")
_DEMO_RATE = 12.0
_BOARD_DEMO_RATE = 5.0

ChatsOption = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="file of ChatMessage objects, one a line")]

cli = typer.Typer(
    name="rugo-worker",
    help="Hears the client's tone in Russian support chats on Kafka and tells when to change the operator. "
    "Settings are environment variables: see `rugo-worker settings`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics_cli = typer.Typer(help="The worker's topics.", no_args_is_help=True)
cli.add_typer(topics_cli, name="topics")
dlq_cli = typer.Typer(help="Dead letters: what could not be read, why, and the way back.", no_args_is_help=True)
cli.add_typer(dlq_cli, name="dlq")

ReasonOption = Annotated[list[str] | None, typer.Option("--reason", help="only those refused for this; may be repeated")]
GroupOption = Annotated[str, typer.Option("--group", help="group that remembers what was sent back; by default <group id>.dlq")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, one object a line")]
WithTextOption = Annotated[bool, typer.Option("--with-text", help="print values too, a client's words among them")]


@cli.command()
def run() -> None:
    """Run the worker until it is stopped (SIGTERM, Ctrl-C) or can't do its job."""
    from worker.app import create_app

    asyncio.run(create_app().run())


@topics_cli.command("create")
def topics_create(
    partitions: Annotated[int, typer.Option(min=1, help="partitions of each topic; the most workers that can share it")] = 6,
    replication_factor: Annotated[
        int, typer.Option(min=0, help="copies of a partition; 0 takes 3, or one a broker if fewer")
    ] = 0,
) -> None:
    """Create the four topics that don't exist yet; those that do are left as they are."""
    from worker.kafka.topics import create_topics

    settings = load_settings()
    outcome = asyncio.run(
        create_topics(
            settings.broker_connection,
            settings.topic_names,
            partitions=partitions,
            replication_factor=replication_factor,
            deadline_s=settings.broker_deadline_s,
        )
    )
    for topic, became in outcome.items():
        typer.echo(f"{topic}: {became}")


@dlq_cli.command("list")
def dlq_list(
    reason: ReasonOption = None,
    since: Annotated[str | None, typer.Option(help="only those refused since: 90m, 24h, 7d, or 2026-09-14T12:00:00Z")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many to show, the newest")] = 50,
    pending: Annotated[bool, typer.Option("--pending", help="only those that were not sent back yet")] = False,
    with_text: WithTextOption = False,
    as_json: JsonOption = False,
    group: GroupOption = "",
) -> None:
    """Count dead letters by reason and show the newest."""
    from worker.dlq import list_letters

    asyncio.run(
        list_letters(
            _dead_letters(group),
            reasons=reason or [],
            since=since,
            limit=limit,
            is_pending=pending,
            with_text=with_text,
            as_json=as_json,
            now=datetime.now(UTC),
        )
    )


@dlq_cli.command("show")
def dlq_show(
    position: Annotated[str, typer.Argument(help="partition and offset in the dead-letter topic, such as 0-17")],
    with_text: WithTextOption = False,
    as_json: JsonOption = False,
    group: GroupOption = "",
) -> None:
    """Show a dead letter: why it was refused, where it was, its key and headers."""
    from worker.dlq import show_letter

    asyncio.run(show_letter(_dead_letters(group), position, with_text=with_text, as_json=as_json))


@dlq_cli.command("redrive")
def dlq_redrive(
    positions: Annotated[list[str] | None, typer.Argument(help="partition and offset of each, such as 0-17")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that were not sent back yet")] = False,
    reason: ReasonOption = None,
    from_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help='corrected values: {"position": "0-17", "value": {...}}, one a line'),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="also those that were sent back before")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be sent, and send nothing")] = False,
    as_json: JsonOption = False,
    group: GroupOption = "",
) -> None:
    """Send dead letters back to the input topic, as they were or with corrected values."""
    from worker.dlq import Selection, redrive

    selection = Selection(
        positions=tuple(positions or ()),
        is_all=everything,
        reasons=tuple(reason or ()),
        corrections=from_file,
        sends_again=again,
    )
    asyncio.run(redrive(_dead_letters(group), selection, is_dry_run=dry_run, as_json=as_json))


@cli.command()
def classify(
    texts: Annotated[
        list[str] | None, typer.Argument(help="texts; without any, one a line is read from standard input")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line: text, tone, negativity, emotions")] = False,
) -> None:
    """Label texts without Kafka, in the order given."""
    from worker.classify import LINE_HEADING, classify_lines, read_lines

    inference, scorer = _load_model(load_settings())
    if not as_json:
        typer.echo(LINE_HEADING)
    if not texts and sys.stdin.isatty():
        typer.echo("reading texts from the terminal, one a line; end with Ctrl-D", err=True)
    for labelled in classify_lines(texts or read_lines(sys.stdin.buffer), inference=inference, scorer=scorer):
        sys.stdout.write(f"{labelled.as_json() if as_json else labelled.as_line()}\n")


@cli.command()
def demo(
    chats: ChatsOption = DEMO_CHATS,
    as_json: Annotated[bool, typer.Option("--json", help="print every output record as one JSON object a line")] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="messages a second, 0 for as fast as it goes; by default 12, with --json 0, with --board 5"),
    ] = None,
    board: Annotated[
        bool, typer.Option("--board", help="show the live board on the chats, which go on under new ids until Ctrl-C")
    ] = False,
) -> None:
    """Run the real worker against an embedded Kafka-protocol broker and show what comes out."""
    from worker.demo import run_board_demo, run_demo

    if board and as_json:
        raise ConfigurationError("--board and --json don't go together: leave one out")
    if board:
        run_board_demo(load_settings().topic_names, chats, rate=_BOARD_DEMO_RATE if rate is None else rate)
        return
    if rate is None:
        rate = 0.0 if as_json else _DEMO_RATE
    run_demo(load_settings().topic_names, chats, as_json=as_json, rate=rate)


@cli.command()
def board(
    history_minutes: Annotated[float, typer.Option(min=0.0, help="how far back it reads when it starts")] = 60.0,
) -> None:
    """Serve the live board, a page for supervisors, until it is stopped (SIGTERM, Ctrl-C)."""
    try:
        from worker.board.run import BoardSettings, run_board
    except ImportError as error:
        raise ConfigurationError(f"the board needs {error.name}: pip install 'rugo-worker[board]'") from error
    from worker.telemetry.logs import configure_logs

    settings = load_settings()
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    run_board(
        BoardSettings(
            connection=settings.broker_connection,
            names=settings.topic_names,
            group_id=settings.group_id,
            host=settings.board_host,
            port=settings.board_port,
            host_names=settings.board_names.split(",") if settings.board_names else [],
            shows_texts=settings.board_show_texts,
            history_s=60.0 * history_minutes,
        ),
        say=typer.echo,
    )


@cli.command("publish-demo")
def publish_demo(
    chats: ChatsOption = DEMO_CHATS,
    rate: Annotated[float, typer.Option(min=0.1, help="messages a second")] = 5.0,
) -> None:
    """Publish the demo's chats to the input topic of a running Kafka."""
    from worker.kafka.demo_producer import publish_lines

    settings = load_settings()
    count = asyncio.run(
        publish_lines(
            chats, settings.broker_connection, topic=settings.input_topic, rate=rate, deadline_s=settings.broker_deadline_s
        )
    )
    typer.echo(f"published {count} messages to {settings.input_topic}")


@cli.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="one JSON object: ok, settings, findings")] = False) -> None:
    """Look at settings, model, broker, topics, group and lag; say what to do. Exit code 1 when something is wrong."""
    from worker import doctor as examine

    in_force: dict[str, str] = {}
    findings = examine.settings_findings(unknown_variables())
    try:
        loaded = load_settings()
        in_force = settings_in_force(loaded)
        read_escalation_policy(loaded.escalation_policy)
        findings += examine.model_findings(lambda: _load_inference(loaded))
        findings += examine.broker_findings(loaded.broker_connection, loaded.topic_names, group_id=loaded.group_id)
        findings += examine.health_findings(loaded.http_host, loaded.http_port)
    except WorkerError as error:
        findings.append(examine.Finding("settings", "wrong", "can't be used", str(error)))
    typer.echo((examine.screen_as_json if as_json else examine.screen)(findings, in_force))
    raise typer.Exit(any(each.verdict == "wrong" for each in findings))


@cli.command()
def settings() -> None:
    """Print every setting, its default and what it is, as a Markdown table."""
    typer.echo(settings_table())


@cli.command()
def schemas(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="where the files go; made if it is not there")] = Path(
        "schemas"
    ),
) -> None:
    """Write the JSON Schemas of messages and events, one file each."""
    from worker.contracts.schemas import json_schemas

    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in json_schemas().items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(schema, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        typer.echo(str(path))


@cli.command()
def metrics() -> None:
    """Print every metric and what it is: the page docs/metrics.md."""
    from worker.telemetry.metrics import metrics_page

    typer.echo(metrics_page())


@cli.command()
def baseline(
    source: Annotated[str, typer.Option(help="what messages these are, for whoever reads the file")] = "emotion events",
) -> None:
    """Make the baseline that drift is measured against, of emotion events on standard input, one a line.

    kafka-console-consumer.sh --topic chat.emotions --from-beginning ... | rugo-worker baseline > baseline.json
    """
    from worker.telemetry.drift import baseline_of_events

    typer.echo(baseline_of_events(sys.stdin.buffer, source=source).model_dump_json(indent=1))


@cli.command()
def version() -> None:
    """Print the worker's version."""
    typer.echo(__version__)


def _dead_letters(group: str) -> "DeadLetters":
    from worker.dlq import DeadLetters

    settings = load_settings()
    return DeadLetters(
        settings.broker_connection,
        settings.topic_names,
        group_id=group or f"{settings.group_id}.dlq",
        deadline_s=settings.broker_deadline_s,
    )


def _load_model(loaded: Settings) -> tuple[Any, Any]:
    bundle, inference = _load_inference(loaded)
    policy = read_escalation_policy(loaded.escalation_policy)
    return inference, bundle.scorer(policy.weights)


def _load_inference(loaded: Settings) -> tuple[Any, Any]:
    from worker.inference.model_bundle import load_model_bundle
    from worker.inference.onnx_classifier import onnx_inference

    bundle = load_model_bundle(loaded.model)
    inference = onnx_inference(
        bundle,
        threads=loaded.inference_threads,
        max_padded_tokens=loaded.max_padded_tokens,
        max_texts=loaded.max_micro_batch,
        cache_texts=loaded.cache_texts,
    )
    return bundle, inference


def main() -> None:
    """Run the command line; a failure that has a name is a sentence, not a traceback."""
    try:
        cli()
    except WorkerError as error:
        sys.exit(f"rugo-worker: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
