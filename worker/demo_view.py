"""The demo's two ways of showing output records: for people in a terminal, and as JSON lines."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

OutputKind = Literal["emotions", "escalation", "dead letter"]

_TONE_STYLE = {"negative": "red", "positive": "green", "mixed": "yellow", "ambiguous": "cyan", "neutral": "dim"}
_TEXT_CHARS = 110


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A record of an output topic.

    `value` is parsed JSON, or a dead letter's text; `answers` is the input's partition and offset.
    """

    kind: OutputKind
    topic: str
    value: Any
    answers: tuple[int, int]
    reason: str = ""


@dataclass(slots=True)
class DemoSummary:
    """Counts and rates of a demo run."""

    published: int = 0
    seconds: float = 0.0
    outputs: Counter[str] = field(default_factory=Counter)
    tones: Counter[str] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    def count(self, output: OutputRecord) -> None:
        """Take in one output record."""
        self.outputs[output.kind] += 1
        if output.kind == "emotions":
            self.tones[output.value["tone"]] += 1
            self.emotions.update(each["label"] for each in output.value["emotions"])
        if output.kind == "dead letter":
            self.rejections[output.reason] += 1


class JsonView:
    """Prints one JSON object per output record: `topic` and `value`."""

    def show(self, output: OutputRecord, source: dict[str, Any] | None) -> None:  # noqa: ARG002 - the other view uses it
        """Print the record."""
        sys.stdout.write(json.dumps({"topic": output.topic, "value": output.value}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self, summary: DemoSummary) -> None:
        """Print nothing more: the output is for programs."""


class TerminalView:
    """Prints a line a message with its emotions, a panel an escalation, and a closing table."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def show(self, output: OutputRecord, source: dict[str, Any] | None) -> None:
        """Print the record; `source` is the message that it answers, if that could be read."""
        if output.kind == "escalation":
            self._show_escalation(output.value)
        elif output.kind == "dead letter":
            self._console.print(Text(f"✉ dead letter ({output.reason}): {_shortened(output.value)}", style="magenta"))
        else:
            self._show_emotions(output.value, source)

    def close(self, summary: DemoSummary) -> None:
        """Print the closing table."""
        table = Table(title="summary", show_header=False, title_style="bold")
        for name, value in _summary_rows(summary):
            table.add_row(name, value)
        self._console.print(table)

    def _show_emotions(self, event: dict[str, Any], source: dict[str, Any] | None) -> None:
        emotions = ", ".join(f"{each['label']} {each['probability']:.2f}" for each in event["emotions"]) or "—"
        line = Text(f"{event['chat_id']:<10} {event['author']:<8} ")
        line.append(_shortened(str((source or {}).get("text", ""))))
        line.append(f"  ⇒ {emotions}", style=_TONE_STYLE[event["tone"]])
        self._console.print(line)

    def _show_escalation(self, event: dict[str, Any]) -> None:
        messages = ", ".join(each["message_id"] for each in event["evidence"])
        self._console.print(
            Panel(
                f"[bold]chat {escape(event['chat_id'])}[/]: reassign operator {escape(event['operator_id'] or '(none yet)')}\n"
                f"reason {event['reason']}, severity {event['severity']:.2f}, evidence {escape(messages)}",
                title="⚠ escalation",
                border_style="bold red",
                expand=False,
            )
        )


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _TEXT_CHARS else one_line[: _TEXT_CHARS - 1] + "…"


def _summary_rows(summary: DemoSummary) -> list[tuple[str, str]]:
    def counted(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"

    rows = [
        ("records published", str(summary.published)),
        ("messages labelled", str(summary.outputs["emotions"])),
        ("escalations", str(summary.outputs["escalation"])),
        ("dead letters", f"{summary.outputs['dead letter']} ({counted(summary.rejections)})"),
        ("tones", counted(summary.tones)),
        ("emotions", counted(summary.emotions)),
        ("records a second", f"{summary.published / max(summary.seconds, 1e-9):.1f} over {summary.seconds:.1f} s"),
    ]
    if len(summary.latencies_s) > 1:
        cuts = quantiles(summary.latencies_s, n=20, method="inclusive")
        rows.append(("record to label", f"median {cuts[9] * 1000:.0f} ms, p95 {cuts[18] * 1000:.0f} ms"))
    return rows
