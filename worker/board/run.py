"""Runs the board: its sources, its pictures and its server, until it is stopped."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from worker.board.feed import BoardFeed
from worker.board.server import allowed_hosts, board_app
from worker.core.failures import ConfigurationError
from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.group_lag import group_lag
from worker.kafka.output_reader import OutputReader

_LAG_S = 5.0
_LOOK_S = 0.5
_STOP_DEADLINE_S = 5


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """What the board must be told. `history_s` is how far back it reads at the start, `host_names` see `allowed_hosts`."""

    connection: BrokerConnection
    names: TopicNames
    group_id: str
    host: str
    port: int
    host_names: Sequence[str]
    shows_texts: bool
    history_s: float


Sources = Callable[[BoardFeed], Iterable[Coroutine[Any, Any, None]]]


def run_board(settings: BoardSettings, *, say: Callable[[str], None]) -> None:
    """Serve the board until SIGINT or SIGTERM; `say` is told the URL. Raises `ConfigurationError` when it can't listen."""
    with listening_socket(settings.host, settings.port) as listener:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"the board is at http://{host}:{listener.getsockname()[1]}/")
        feed = BoardFeed(settings.names, shows_texts=settings.shows_texts)
        hosts = allowed_hosts(settings.host, settings.host_names)
        asyncio.run(serve_board(feed, listener, hosts=hosts, sources=lambda each: _from_kafka(settings, each)))


async def serve_board(feed: BoardFeed, listener: socket.socket, *, hosts: Sequence[str], sources: Sources) -> None:
    """Serve the board on a bound socket until a signal says to stop; the sources run as long, and feed it."""
    server = _Server(
        uvicorn.Config(
            board_app(feed.show, hosts=hosts),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_STOP_DEADLINE_S,
        ),
        on_exit=feed.show.end,
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    feeding = [asyncio.create_task(each) for each in (feed.draw(), *sources(feed))]
    try:
        # A source never ends by itself: one that does has met a bug, which is raised.
        finished, _ = await asyncio.wait([serving, *feeding], return_when=asyncio.FIRST_COMPLETED)
        for each in finished:
            each.result()
    finally:
        server.stop()
        await asyncio.wait([serving])
        for each in feeding:
            each.cancel()
        await asyncio.wait(feeding)


def _from_kafka(settings: BoardSettings, feed: BoardFeed) -> list[Coroutine[Any, Any, None]]:
    names = settings.names
    reader = OutputReader(
        settings.connection,
        # Without the setting no text reaches this process: the input topic is not read.
        [names.emotions, names.escalations, *([names.input] if settings.shows_texts else [])],
        since_ms=int((time.time() - settings.history_s) * 1000),
        on_records=feed.take,
        on_state=feed.tell,
    )
    return [reader.run(), _watch_lag(settings, feed)]


async def _watch_lag(settings: BoardSettings, feed: BoardFeed) -> None:
    while True:
        if not feed.show.viewers:
            await asyncio.sleep(_LOOK_S)
            continue
        feed.lag = await group_lag(
            settings.connection, group_id=settings.group_id, topic=settings.names.input, timeout_s=_LAG_S
        )
        await asyncio.sleep(_LAG_S)


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it with exit code 0, and streams end before it waits for them."""

    def __init__(self, config: uvicorn.Config, *, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Stop serving, soon."""
        self.should_exit = True
        self._on_exit()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - as a signal handler is called
        """Stop, whatever the signal; uvicorn's own would raise it again afterwards."""
        self._loop.call_soon_threadsafe(self.stop)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 takes any free one. Raises `ConfigurationError` saying what to set."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({error.strerror or error}): set RUGO_BOARD_HOST and RUGO_BOARD_PORT "
            "(0 takes any free port)."
        ) from error
    return listener
