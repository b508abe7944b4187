"""The board over HTTP: one page, one stream of server-sent events a viewer, GET only.

The page may run its own script and style and nothing else; on loopback, and where names are given, requests under other names
are refused, so that a web site can't read the board through its visitor's browser.
"""

import asyncio
import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from worker.board.window import Picture, Viewer

MAX_VIEWERS = 32
_BUSY_RETRY_MS = 10_000
_RETRY_MS = 2000
_PAGE = Path(__file__).with_name("page.html")
_LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]


@dataclass(slots=True)
class Show:
    """The picture that every viewer is shown, replaced a few times a second. Lives on the event loop."""

    picture: Picture | None = None
    viewers: int = 0
    is_over: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, picture: Picture) -> None:
        """Show this picture from now on."""
        self.picture = picture
        self._wake()

    def end(self) -> None:
        """Let every viewer's stream end."""
        self.is_over = True
        self._wake()

    async def wait(self) -> None:
        """Return when there is a new picture or the show is over."""
        await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def board_app(show: Show, *, hosts: Sequence[str]) -> Starlette:
    """Return the ASGI application that shows `show` to requests under these names, or under any for "*"."""
    page = _PAGE.read_text(encoding="utf-8")
    headers = _headers(page)

    async def answer_page(request: Request) -> Response:  # noqa: ARG001 - the router gives it
        return HTMLResponse(page, headers=headers)

    async def answer_events(request: Request) -> Response:
        events = _events(show, Viewer(request.query_params.get("q", "")))
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    return Starlette(
        routes=[Route("/", answer_page, methods=["GET"]), Route("/events", answer_events, methods=["GET"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


async def _events(show: Show, viewer: Viewer) -> AsyncIterator[str]:
    if show.viewers >= MAX_VIEWERS:
        yield f"retry: {_BUSY_RETRY_MS}\nevent: busy\ndata: {MAX_VIEWERS}\n\n"
        return
    show.viewers += 1
    try:
        yield f"retry: {_RETRY_MS}\n\n"
        shown: Picture | None = None
        while not show.is_over:
            if show.picture is None or show.picture is shown:
                await show.wait()
                continue
            shown = show.picture
            # A slow viewer is waited for here, and sees the newest picture next: nothing piles up for it.
            yield f"data: {json.dumps(viewer.next_message(shown), ensure_ascii=False, separators=(',', ':'))}\n\n"
    finally:
        show.viewers -= 1


def _headers(page: str) -> dict[str, str]:
    policy = (
        "default-src 'none'",
        f"script-src {_hash_of(page, 'script')}",
        f"style-src {_hash_of(page, 'style')}",
        "connect-src 'self'",
        "img-src data:",  # the page's own icon
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Accel-Buffering": "no",
        "X-Content-Type-Options": "nosniff",
    }


def _hash_of(page: str, element: str) -> str:
    """Return the policy's source for the page's one inline script or style."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def allowed_hosts(host: str, names: Sequence[str]) -> list[str]:
    """Return the names that are answered by a server that listens on `host` and is known by `names` besides."""
    return [*_LOOPBACK_NAMES, *(each.lower() for each in names)] if names or is_loopback(host) else ["*"]


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
