"""Logs: one JSON object a line on standard error, or readable lines on a terminal. Never a message's text."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Literal

import structlog

from worker.core.failures import WorkerError

LogFormat = Literal["json", "console"]

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(*, level: str, log_format: LogFormat) -> None:
    """Send our logs and the libraries' to standard error in one form. Libraries are heard only when something is wrong."""
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_traceback_without_texts),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").filters[:] = [_first_line_only]
    logging.raiseExceptions = False  # else a line that can't be written is shown whole, on whatever is left to write on
    for name, least in {
        "aiokafka": logging.WARNING,
        "asyncio": logging.WARNING,
        "faststream": logging.ERROR,
        "opentelemetry": logging.ERROR,
    }.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(least, root.level))
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _traceback_without_texts(exc_info: Any) -> str:
    """Return where an exception and its causes come from, without what it says: that may be a message's text.

    What is ours or the system's or the Kafka client's says no texts, and is kept.
    """
    return "\n".join(line.rstrip("\n") for error in _chain(exc_info[1]) for line in _lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    yield from traceback.format_tb(error.__traceback__)
    kind = type(error)
    says_no_text = isinstance(error, WorkerError | OSError) or kind.__module__.partition(".")[0] == "aiokafka"
    yield f"{kind.__module__}.{kind.__qualname__}: {error if says_no_text else '(left out)'}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _first_line_only(record: logging.LogRecord) -> bool:
    """Cut what asyncio adds to a complaint: the repr of a task, with that of its exception."""
    record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True
