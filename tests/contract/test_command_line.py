"""The command line as its users meet it: separate processes, exit codes, and sentences that say what to change."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.support.worker_process import ROOT


@pytest.fixture
def rugo(tiny_bundle):
    def rugo(*arguments, stdin=b"", check=True, timeout_s=120, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            input=stdin,
            env={**os.environ, "RUGO_MODEL": str(tiny_bundle), **environment},
            capture_output=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    return rugo


def json_lines(output):
    return [json.loads(line) for line in output.decode().splitlines()]


def test_classify_labels_arguments_in_order(rugo):
    found = json_lines(rugo("classify", "--json", "спасибо", "я злюсь", "стол").stdout)
    assert [each["text"] for each in found] == ["спасибо", "я злюсь", "стол"]
    assert [each["tone"] for each in found] == ["positive", "negative", "neutral"]
    assert set(found[0]) == {"text", "tone", "negativity", "emotions"}
    assert set(found[0]["emotions"][0]) == {"label", "probability", "threshold"}
    assert found[1]["negativity"] > 0.9


def test_classify_reads_standard_input_a_line_a_text_whatever_the_bytes(rugo):
    found = json_lines(rugo("classify", "--json", stdin="спасибо\r\n\n  \n".encode() + b"\xff\xfe\n" + "рада".encode()).stdout)
    assert [each["text"] for each in found] == ["спасибо", "", "  ", "��", "рада"]
    assert [each["tone"] for each in found] == ["positive", "neutral", "neutral", "neutral", "positive"]


def test_classify_survives_a_text_that_breaks_the_model(rugo):
    found = json_lines(rugo("classify", "--json", stdin="спасибо\nотрава\nрада\n".encode()).stdout)
    assert [each["tone"] for each in found] == ["positive", "neutral", "positive"]


def test_classify_prints_a_table_for_people(rugo):
    output = rugo("classify", "спасибо").stdout.decode().splitlines()
    assert output[0].split() == ["tone", "neg", "emotions", "text"]
    assert "gratitude" in output[1]


def test_classify_takes_a_stream_without_holding_it(tiny_bundle):
    """Answers begin to come while the input is still open."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "classify", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RUGO_MODEL": str(tiny_bundle)},
        cwd=ROOT,
    )
    process.stdin.write("спасибо\n".encode() * 2000)
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["tone"] == "positive"
    assert process.poll() is None
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_reader_that_goes_away_leaves_no_traceback(tiny_bundle):
    command = f"yes спасибо | head -20000 | {sys.executable} -m worker classify --json | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "RUGO_MODEL": str(tiny_bundle)},
        capture_output=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert json.loads(done.stdout)["tone"] == "positive"
    assert done.stderr == b""


MESSAGES = [
    {"message_id": "m1", "chat_id": "calm", "text": "спасибо"},
    {"message_id": "m2", "chat_id": "furious", "text": "я злюсь", "operator_id": "op-1"},
    {"message_id": "m3", "chat_id": "calm", "text": "почему", "author": "operator"},
]


def test_demo_prints_every_output_record_of_any_file_and_ends(rugo, tmp_path):
    lines = [json.dumps(each, ensure_ascii=False).encode() for each in MESSAGES]
    malformed = [b'{"message_id": "m4", "chat', b"[]", "просто слова".encode(), b"\xff\xfe"]
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\n".join([lines[0], malformed[0], lines[1], *malformed[1:], b"", lines[2]]))
    found = json_lines(rugo("demo", "--chats", str(path), "--json").stdout)
    assert all(set(each) == {"topic", "value"} for each in found)
    labelled = {each["value"]["message_id"]: each["value"] for each in found if each["topic"] == "chat.emotions"}
    assert {name: each["tone"] for name, each in labelled.items()} == {"m1": "positive", "m2": "negative", "m3": "ambiguous"}
    dead = {each["value"] for each in found if each["topic"] == "chat.messages.dlq"}
    assert dead == {each.decode("utf-8", "replace") for each in malformed}
    [escalation] = [each["value"] for each in found if each["topic"] == "chat.escalations"]
    assert (escalation["chat_id"], escalation["operator_id"]) == ("furious", "op-1")


def test_demo_carries_thousands_of_messages_and_long_ones(rugo, tmp_path):
    path = tmp_path / "chats.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(3000):
            text = "спасибо " * (1000 if number % 100 == 0 else 1)
            file.write(json.dumps({"message_id": f"m{number}", "chat_id": f"c{number % 50}", "text": text}) + "\n")
    found = json_lines(rugo("demo", "--chats", str(path), "--json").stdout)
    assert {each["value"]["message_id"] for each in found} == {f"m{number}" for number in range(3000)}


def test_demo_takes_a_megabyte_in_a_line_and_refuses_what_no_record_holds(rugo, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({**MESSAGES[0], "text": "x" * 1_200_000}) + "\n" + json.dumps(MESSAGES[0]), "utf-8")
    found = json_lines(rugo("demo", "--chats", str(path), "--json").stdout)
    assert sorted(each["topic"] for each in found) == ["chat.emotions", "chat.messages.dlq"]
    path.write_text("x" * 3_000_000, "utf-8")
    done = rugo("demo", "--chats", str(path), "--json", check=False)
    assert done.returncode == 1
    assert "shorten it" in done.stderr.decode()


def test_demo_shows_people_labels_escalations_and_a_summary(rugo, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in [*MESSAGES, 42]), "utf-8")
    shown = rugo("demo", "--chats", str(path), "--rate", "0").stdout.decode()
    for expected in ("gratitude", "escalation", "furious", "dead letter", "summary", "messages labelled"):
        assert expected in shown


def test_demo_tells_why_the_worker_ended(rugo, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(MESSAGES[0]), "utf-8")
    done = rugo("demo", "--chats", str(path), "--json", check=False, RUGO_MODEL=str(tmp_path))
    assert done.returncode == 1
    assert b"RUGO_MODEL" in done.stderr


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("command", [["run"], ["topics", "create"]])
def test_an_unreachable_broker_ends_the_worker_after_its_deadline_with_a_sentence(rugo, closed_port, command):
    started_s = time.monotonic()
    done = rugo(
        *command, check=False, RUGO_BOOTSTRAP_SERVERS=f"127.0.0.1:{closed_port}", RUGO_BROKER_DEADLINE_S="3", RUGO_HTTP_PORT="0"
    )
    assert done.returncode == 1
    assert f"no Kafka broker answered at 127.0.0.1:{closed_port}" in done.stderr.decode()
    assert "RUGO_BOOTSTRAP_SERVERS" in done.stderr.decode()
    assert time.monotonic() - started_s < 20


def test_altered_weights_are_refused(rugo, tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"!")
    done = rugo("run", check=False, RUGO_MODEL=str(bundle))
    assert done.returncode == 1
    assert "model.onnx was altered" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RUGO_HTTP_PORT": "x"}, "RUGO_HTTP_PORT"),
        ({"RUGO_DELIVERY": "at_most_once"}, "RUGO_DELIVERY"),
        ({"RUGO_ESCALATION_POLICY": "/nonexistent.toml"}, "RUGO_ESCALATION_POLICY"),
        ({"RUGO_MODEL": "/nonexistent"}, "RUGO_MODEL"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "faststream"])
def test_a_wrong_setting_is_a_sentence_and_exit_code_1(tiny_bundle, environment, told, command):
    arguments = ["worker", "run"] if command == "worker" else ["faststream", "run", "worker.app:app"]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "RUGO_MODEL": str(tiny_bundle), **environment},
        capture_output=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_the_readme_holds_the_generated_table_of_settings():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUGO_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", "settings"], env=environment, capture_output=True, check=True, timeout=60, cwd=ROOT
    )
    assert done.stdout.decode().strip() in (ROOT / "README.md").read_text("utf-8")


def test_the_asyncapi_document_shows_the_true_message_shapes(tiny_bundle):
    done = subprocess.run(
        [sys.executable, "-m", "faststream", "docs", "gen", "worker.app:app", "--out", "/dev/stdout"],
        env={**os.environ, "RUGO_MODEL": str(tiny_bundle), "RUGO_HTTP_PORT": "0"},
        capture_output=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )
    text = done.stdout.decode()
    document = json.loads(text[text.index("{") : text.rindex("}") + 1])
    schemas = document["components"]["schemas"]
    addresses = {each["address"] for each in document["channels"].values()}
    assert addresses == {"chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq"}
    assert {"EmotionEvent", "EscalationEvent"} <= set(schemas)
    chat_message = next(
        each for each in schemas.values() if "message_id" in each.get("required", []) and "text" in each["required"]
    )
    assert chat_message["properties"]["text"]["maxLength"] == 8192
