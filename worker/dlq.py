"""`dlq list`, `dlq show` and `dlq redrive`: dead letters for an operator. Texts are printed only when asked for."""

import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from worker.contracts import dead_letter
from worker.core.dead_letters import (
    DeadLetter,
    Redrive,
    corrected,
    parse_corrections,
    parse_position,
    redrive_of,
    shown_value,
)
from worker.core.failures import DeadLetterError
from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.dead_letters import DeadLetterTopic, open_dead_letters, send_back

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Where the dead letters are, and which group remembers what was sent back."""

    connection: BrokerConnection
    names: TopicNames
    group_id: str
    deadline_s: float

    def open(self) -> AbstractAsyncContextManager[DeadLetterTopic]:
        """Open the topic as it stands now."""
        topic = self.names.dead_letter
        return open_dead_letters(self.connection, topic=topic, group_id=self.group_id, deadline_s=self.deadline_s)


async def list_letters(
    where: DeadLetters,
    *,
    reasons: Collection[str],
    since: str | None,
    limit: int,
    is_pending: bool,
    with_text: bool,
    as_json: bool,
    now: datetime,
) -> None:
    """Print counts by reason and the newest `limit` of the dead letters that are meant, or these as JSON lines."""
    check_reasons(reasons)
    since_ms = None if since is None else int(parse_since(since, now=now).timestamp() * 1000)
    counts: Counter[str] = Counter()
    newest: list[tuple[int, int, DeadLetter]] = []
    async with where.open() as opened:
        with _progress() as bar:
            task = bar.add_task("reading dead letters", total=opened.size)
            async for letter in opened.read(since_ms=since_ms):
                bar.advance(task)
                if _is_meant(letter, reasons) and not (is_pending and opened.was_redriven(letter)):
                    counts[letter.reason] += 1
                    heappush(newest, (letter.record.timestamp_ms, counts.total(), letter))
                    if len(newest) > limit:
                        heappop(newest)
        rows = [_row(each, was_redriven=opened.was_redriven(each), with_text=with_text) for _, _, each in sorted(newest)]
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    _print_table(rows, counts, topic=where.names.dead_letter)


async def show_letter(where: DeadLetters, position: str, *, with_text: bool, as_json: bool) -> None:
    """Print all of a dead letter but its value; that too with `with_text`."""
    async with where.open() as opened:
        [letter] = await opened.fetch([parse_position(position, topic=where.names.dead_letter)])
        row = _row(letter, was_redriven=opened.was_redriven(letter), with_text=with_text)
    row["key"] = None if letter.record.key is None else letter.record.key.decode("utf-8", "backslashreplace")
    row["headers"] = [
        {"name": name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), "value": _header_text(value)}
        for name, value in letter.record.headers
        if not name.startswith(dead_letter.PREFIX) or name in (dead_letter.WORKER_VERSION, dead_letter.REDRIVEN_FROM)
    ]
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    for name, value in row.items():
        if name != "headers":
            _say(f"{name:13} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    for header in row["headers"]:
        _say(f"header        {header['name']}: {header['value']}")
    if not with_text:
        _say("The value is left out, as it may hold a client's words: --with-text prints it.")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters to send back: positions, those of a file of corrections, or all (of some reasons)."""

    positions: tuple[str, ...] = ()
    is_all: bool = False
    reasons: tuple[str, ...] = ()
    corrections: Path | None = None
    sends_again: bool = False

    def check(self) -> None:
        """Raise `DeadLetterError` unless exactly one way to choose is used."""
        check_reasons(self.reasons)
        ways = (bool(self.positions), self.corrections is not None, self.is_all or bool(self.reasons))
        if sum(ways) != 1:
            raise DeadLetterError("say which to send back: positions, or --all, or --reason, or --from-file; one of the four.")


async def redrive(where: DeadLetters, selection: Selection, *, is_dry_run: bool, as_json: bool) -> None:
    """Send dead letters back to the input topic and say how many; those that were sent back before are passed over."""
    selection.check()
    sent: Counter[str] = Counter()
    passed_over: Counter[str] = Counter()
    async with where.open() as opened:
        with _progress() as bar:
            chosen = _chosen(where, selection, opened=opened, sent=sent, passed_over=passed_over)
            task = bar.add_task("sending back", total=None)
            if is_dry_run:
                async for _ in chosen:
                    bar.advance(task)
            else:
                await send_back(
                    where.connection,
                    chosen,
                    opened=opened,
                    deadline_s=where.deadline_s,
                    on_sent=lambda count: bar.advance(task, count),
                )
    if as_json:
        counts = {"redriven": sent.total(), "by_reason": sent, "passed_over": passed_over.total(), "dry_run": is_dry_run}
        sys.stdout.write(json.dumps(counts) + "\n")
        return
    _say(f"{'would send' if is_dry_run else 'sent'} {_counted(sent)} back to {where.names.input}")
    if passed_over:
        _say(f"passed over {_counted(passed_over)}, sent back before: --again sends them once more")


async def _chosen(
    where: DeadLetters, selection: Selection, *, opened: DeadLetterTopic, sent: Counter[str], passed_over: Counter[str]
) -> AsyncIterator[Redrive]:
    topic, values = where.names.dead_letter, {}
    if selection.corrections is not None:
        with selection.corrections.open("rb") as lines:
            values = parse_corrections(lines, topic=topic, source=str(selection.corrections))
    asked = list(values) or [parse_position(each, topic=topic) for each in selection.positions]
    redrives = [redrive_of(letter, input_topic=where.names.input) for letter in await opened.fetch(asked)]
    if values:  # all of them are looked at before the first is sent
        redrives = [corrected(each, value) for each, value in zip(redrives, values.values(), strict=True)]
    stream: AsyncIterator[Redrive] = _each(redrives)
    if not asked:
        stream = (redrive_of(letter, input_topic=where.names.input) async for letter in opened.read())
    async for each in stream:
        if not _is_meant(each.letter, selection.reasons):
            continue
        if opened.was_redriven(each.letter) and not selection.sends_again:
            passed_over[each.letter.reason] += 1
            continue
        sent[each.letter.reason] += 1
        yield each


async def _each(redrives: Collection[Redrive]) -> AsyncIterator[Redrive]:
    for each in redrives:
        yield each


def check_reasons(reasons: Collection[str]) -> None:
    """Raise `DeadLetterError` where a reason is none that the worker gives."""
    known = [*dead_letter.REJECTION_REASONS, "unknown"]
    if wrong := [each for each in reasons if each not in known]:
        raise DeadLetterError(f"there is no reason {', '.join(wrong)}: choose from {', '.join(known)}.")


def parse_since(text: str, *, now: datetime) -> datetime:
    """Return the moment that `90m`, `24h`, `7d` or RFC 3339 names. Raises `DeadLetterError`."""
    if found := _DURATION.fullmatch(text):
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DeadLetterError(f"--since {text}: give a time span such as 90m, 24h or 7d, or 2026-09-14T12:00:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_meant(letter: DeadLetter, reasons: Collection[str]) -> bool:
    return not reasons or letter.reason in reasons


def _row(letter: DeadLetter, *, was_redriven: bool, with_text: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "position": letter.position,
        "reason": letter.reason,
        "error": letter.error,
        "time": _moment(letter.record.timestamp_ms),
        "size_bytes": letter.size_bytes,
        "origin": letter.origin_position,
        "redriven": was_redriven,
    }
    return {**row, "value": shown_value(letter.record.value)} if with_text else row


def _moment(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(max(0, timestamp_ms) // 1000, tz=UTC).isoformat().replace("+00:00", "Z")


def _header_text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _print_table(rows: Sequence[dict[str, Any]], counts: Counter[str], *, topic: str) -> None:
    if not counts:
        _say(f"no dead letters of this kind in {topic}")
        return
    table = Table(box=None, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name in ("position", "reason", "time"))
    for row in rows:
        table.add_row(
            *(escape(str(value) if not isinstance(value, bool) else "yes" if value else "") for value in row.values())
        )
    console = Console()
    console.print(table)
    console.print(f"\n{_counted(counts)} in {topic}, the newest {len(rows)} shown", highlight=False)


def _counted(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    total = counts.total()
    return f"{total} dead letter{'' if total == 1 else 's'}" + (f" ({kinds})" if kinds else "")


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
