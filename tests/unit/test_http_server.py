import socket
import threading
from contextlib import ExitStack
from http import HTTPStatus

import pytest

from tests.support.worker_process import wait_until
from worker.telemetry.http_server import MAX_CONNECTIONS, BoundedHttpServer


@pytest.fixture
def server():
    made = BoundedHttpServer(("127.0.0.1", 0), {"/live": lambda: (HTTPStatus.OK, "text/plain", b"yes"), "/bug": lambda: 1 / 0})
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def connect(server):
    return socket.create_connection(server.server_address[:2], timeout=10)


def ask(server, request: bytes) -> bytes:
    with connect(server) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_a_route_is_answered_and_python_is_not_named(server):
    answer = ask(server, b"GET /live?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nyes")
    assert b"Python" not in answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /canary HTTP/1.1", b"404 Not Found"),
        (b"GET /../../etc/passwd HTTP/1.1", b"404 Not Found"),
        (b"POST /live HTTP/1.1", b"405 Method Not Allowed"),
        (b"DELETE /live HTTP/1.1", b"405 Method Not Allowed"),
        (b"HEAD /live HTTP/1.1", b"405 Method Not Allowed"),
        (b"canary /live HTTP/1.1", b"405 Method Not Allowed"),
        (b"GET /" + b"canary" * 20_000 + b" HTTP/1.1", b"414 "),
        (b"GET canary canary canary", b"400 Bad Request"),
        (b"GET /live HTTP/canary", b"400 Bad Request"),
        (b"GET /live HTTP/1.1\r\nX: " + b"canary" * 20_000, b"431 "),
        (b"GET /live HTTP/1.1\r\n" + b"X: canary\r\n" * 200, b"431 "),
    ],
)
def test_whatever_else_is_asked_gets_a_status_and_nothing_of_the_request(server, request_line, status):
    answer = ask(server, request_line + b"\r\nHost: canary\r\n\r\n")
    assert status in answer.partition(b"\r\n")[0]
    assert b"canary" not in answer


def test_many_slow_clients_do_not_keep_a_probe_out(server):
    with ExitStack() as held:
        slow = [held.enter_context(connect(server)) for _ in range(3 * MAX_CONNECTIONS)]
        for each in slow:
            try:
                each.sendall(b"GET /live HT")
            except OSError:
                continue  # dropped already
        assert ask(server, b"GET /live HTTP/1.1\r\n\r\n").endswith(b"yes")
        wait_until(lambda: len(server._open) <= MAX_CONNECTIONS, what="the oldest connections are dropped")
        handlers = [each for each in threading.enumerate() if "process_request_thread" in each.name]
        assert len(handlers) <= MAX_CONNECTIONS + 1


def test_a_client_that_hangs_up_leaves_nothing_in_the_log(server, capfd):
    for _ in range(20):
        with connect(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(b"GET /live HTTP/1.1\r\n\r\n")
    assert ask(server, b"GET /live HTTP/1.1\r\n\r\n").endswith(b"yes")
    wait_until(lambda: not server._open, what="all are closed")
    assert capfd.readouterr().err == ""


def test_a_bug_in_a_route_is_named_without_a_traceback(server, capfd):
    assert ask(server, b"GET /bug HTTP/1.1\r\nHost: canary\r\n\r\n") == b""
    said = capfd.readouterr()
    assert "ZeroDivisionError" in said.out + said.err
    assert "Traceback" not in said.out + said.err
