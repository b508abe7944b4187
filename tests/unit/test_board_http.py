"""The board's server: what it answers, to whom, and with which headers."""

import http.client
import re
from pathlib import Path

import pytest

import worker.board
from tests.support.board_stand import board_stand
from worker.board.run import listening_socket
from worker.board.server import is_loopback
from worker.core.failures import ConfigurationError


@pytest.fixture(scope="module")
def stand():
    with board_stand() as running:
        yield running


def ask(stand, method="GET", path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", int(stand.url.rstrip("/").rpartition(":")[2]), timeout=20)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_the_page_comes_whole_with_a_strict_policy(stand):
    answer = ask(stand)
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_get_is_answered(stand, method):
    assert ask(stand, method).status == 405
    assert ask(stand, method, "/events").status == 405


def test_there_are_no_other_paths(stand):
    assert ask(stand, path="/page.html").status == 404
    assert ask(stand, path="/../settings.py").status == 404


def test_on_loopback_another_hosts_name_is_refused(stand):
    assert ask(stand, Host="evil.example").status == 400
    assert ask(stand, Host="localhost:8090").status == 200
    assert [is_loopback(each) for each in ("127.0.0.1", "localhost", "::1", "10.0.0.7", "board.example")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_viewer_beyond_the_limit_is_told_so_and_sent_nothing_else(stand):
    stand.call(lambda: setattr(stand.feed.show, "viewers", 32))
    body = ask(stand, path="/events").read().decode()
    stand.call(lambda: setattr(stand.feed.show, "viewers", 0))
    assert body == "retry: 10000\nevent: busy\ndata: 32\n\n"


def test_a_port_that_is_taken_is_said_with_what_to_set(stand):
    port = int(stand.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigurationError, match="RUGO_BOARD_PORT"):
        listening_socket("127.0.0.1", port)


def test_the_page_uses_no_way_to_make_markup_of_text():
    page = Path(worker.board.__file__).with_name("page.html").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|\beval\b|new Function", page)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
