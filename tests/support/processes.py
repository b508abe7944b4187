"""What a server beside the tests needs: a free port, an eye on whether it answers, and an end when the tests die."""

import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence

_DISMISS_DEADLINE_S = 20.0


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on.

    They lie below the ephemeral range: while a broker is down, a client that keeps dialling an ephemeral port can be given
    that very port as its own, and the broker could not come back to it.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(15_000, 30_000), 1_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free loopback port between 15000 and 30000")


def comes_true(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Return whether the condition came true before the deadline, looking every 50 ms."""
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def broker_answers(host: str, port: int, *, timeout_s: float = 2.0) -> bool:
    """Say whether a Kafka broker there answers a Metadata request and counts at least one broker fit for work."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as answer:
                header = answer.read(12)
    except OSError:
        return False
    return len(header) == 12 and struct.unpack(">iii", header)[2] >= 1


def start_guard(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a small process that runs the command if this one dies, however it dies, before `dismiss_guard`."""
    # not PR_SET_PDEATHSIG: that fires when the thread that started the child ends, and tests start it from threads
    script = 'read -r _ && exit 0; exec "$@" >/dev/null 2>&1'
    return subprocess.Popen(["/bin/sh", "-c", script, "guard", *command], stdin=subprocess.PIPE, start_new_session=True)


def dismiss_guard(guard: subprocess.Popen[bytes]) -> None:
    """End the guard without its command having run."""
    guard.communicate(b"dismissed\n", timeout=_DISMISS_DEADLINE_S)


def end_of(text: str, *, characters: int = 1500) -> str:
    """Return the end of what a process said, for an error's text."""
    return text.strip()[-characters:]
