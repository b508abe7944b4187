import asyncio
import gc
import json
import logging

import pytest
import structlog

from worker.core.failures import BrokerUnavailableError
from worker.telemetry.logs import configure_logs

CANARY = "канарейка-в-тексте"


@pytest.fixture(params=["json", "console"])
def log_format(request):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield request.param
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True


@pytest.fixture
def log(log_format, capfd):
    """Logs begin when it is first called, in the phase of the test itself: pytest changes handlers between the two."""

    def read():
        return capfd.readouterr().err

    read.begin = lambda: configure_logs(level="DEBUG", log_format=log_format)
    return read


def fail_with_text():
    try:
        {}[CANARY]
    except KeyError as error:
        raise ValueError(f"can't take {CANARY}") from error


def test_a_traceback_says_where_and_what_kind_and_nothing_that_an_exception_says(log):
    log.begin()
    try:
        fail_with_text()
    except ValueError as error:
        structlog.get_logger("worker").error("unexpected", exc_info=error)
        logging.getLogger("some.library").exception("unexpected too")
    said = log()
    assert "fail_with_text" in said
    assert "ValueError" in said
    assert "KeyError" in said
    assert CANARY not in said


def test_a_failure_that_has_a_sentence_keeps_it(log):
    log.begin()
    structlog.get_logger("worker").error("failed", exc_info=BrokerUnavailableError("no Kafka broker answered"))
    assert "no Kafka broker answered" in log()


def test_a_task_whose_exception_nobody_fetched_shows_no_text(log):
    async def fail():
        raise ValueError(CANARY)

    async def forget():
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    log.begin()
    asyncio.run(forget())
    gc.collect()
    said = log()
    assert "Task exception was never retrieved" in said
    assert CANARY not in said


def test_a_chat_s_id_can_not_forge_a_line_or_steer_a_terminal(log):
    log.begin()
    structlog.get_logger("worker").info("chat escalated", chat_id='evil\n{"event": "all is well"}\x1b[2J')
    (line,) = log().strip().splitlines()
    assert "\x1b[2J" not in line
    if line.startswith("{"):
        assert json.loads(line)["event"] == "chat escalated"


def test_a_line_that_can_not_be_written_is_not_shown_elsewhere(log):
    log.begin()
    logging.getLogger().handlers[0].setStream(open("/dev/full", "w"))  # noqa: SIM115, PTH123
    structlog.get_logger("worker").error("unexpected", text=CANARY)
    assert log() == ""
