"""The board's server: what it answers, to whom, and with which headers; and that its page has a word for all it is sent."""

import http.client
import re
from pathlib import Path
from typing import get_args

import pytest

import worker.board
from tests.support.board_stand import board_stand
from worker.board.run import listening_socket
from worker.board.server import MAX_VIEWERS, allowed_hosts, is_loopback
from worker.board.state import Outcome
from worker.board.window import Level
from worker.contracts.inbound import Author
from worker.contracts.outbound import EscalationReason
from worker.core.failures import ConfigurationError
from worker.core.labels import GOEMOTIONS_LABELS, NEGATIVE, POSITIVE, Tone

PAGE = Path(worker.board.__file__).with_name("page.html").read_text(encoding="utf-8")


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
    assert ask(stand, Host="LOCALHOST").status == 200
    assert [is_loopback(each) for each in ("127.0.0.1", "localhost", "::1", "10.0.0.7", "board.example")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_board_that_has_names_answers_under_them_and_to_its_own_machine():
    with board_stand(host_names=["Board.example"]) as stand:
        hosts = ("board.example", "board.example:8443", "127.0.0.1:8090", "evil.example", "x.board.example", "")
        assert [ask(stand, Host=each).status for each in hosts] == [200, 200, 200, 400, 400, 400]
        assert ask(stand, path="/events", Host="evil.example").status == 400


def test_elsewhere_than_on_loopback_any_name_is_answered_until_names_are_given():
    assert allowed_hosts("10.0.0.7", []) == ["*"]
    assert set(allowed_hosts("10.0.0.7", ["localhost"])) == {"localhost", "127.0.0.1", "[::1]"}


def test_a_viewer_beyond_the_limit_is_told_so_and_sent_nothing_else(stand):
    stand.call(lambda: setattr(stand.feed.show, "viewers", MAX_VIEWERS))
    body = ask(stand, path="/events").read().decode()
    stand.call(lambda: setattr(stand.feed.show, "viewers", 0))
    assert body == f"retry: 10000\nevent: busy\ndata: {MAX_VIEWERS}\n\n"


def test_a_port_that_is_taken_is_said_with_what_to_set(stand):
    port = int(stand.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigurationError, match="RUGO_BOARD_PORT"):
        listening_socket("127.0.0.1", port)


def test_the_page_uses_no_way_to_make_markup_of_text():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|\beval\b|new Function", PAGE)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", PAGE)


def words_of(language, name):
    """Return the keys of one of the page's tables of words in a language."""
    (block,) = re.findall(rf"^  {language}: \{{\n(.*?)^  \}},$", PAGE, re.DOTALL | re.MULTILINE)
    unquoted = re.sub(r'"[^"]*"|`[^`]*`', "", block)
    (table,) = re.findall(rf"\b{name}: \{{([^{{}}]*)\}}", unquoted)
    return set(re.findall(r"(\w+):", table))


def group_of(name):
    (labels,) = re.findall(rf'for \(const each of "([a-z ]+)"\.split\(" "\)\) GROUP\[each\] = "{name}";', PAGE)
    return set(labels.split())


@pytest.mark.parametrize("language", ["ru", "en"])
def test_the_page_has_a_word_for_everything_that_it_can_be_sent(language):
    assert words_of(language, "tone") == set(get_args(Tone))
    assert words_of(language, "reason") == set(get_args(EscalationReason))
    assert words_of(language, "outcome") == {outcome for each in get_args(Outcome) for outcome in get_args(each)}
    assert words_of(language, "level") == set(get_args(Level))
    assert words_of(language, "author") == set(get_args(Author))
    # English words for emotions are the labels themselves.
    assert words_of(language, "emotion") == (set(GOEMOTIONS_LABELS) if language == "ru" else set())


def test_the_page_groups_emotions_and_tones_as_the_worker_does():
    assert group_of("positive") == POSITIVE
    assert group_of("negative") == NEGATIVE
    (tones,) = re.findall(r"^const TONES = \[(.*)\];$", PAGE, re.MULTILINE)
    assert sorted(re.findall(r'"(\w+)"', tones)) == sorted(get_args(Tone))
    assert set(re.findall(r'\[data-tone="(\w+)"\] \{ --swatch', PAGE)) == set(get_args(Tone))
