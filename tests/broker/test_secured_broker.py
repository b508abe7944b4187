"""A Kafka with TLS, SASL and the authorizer on: the worker gets in with what it was given, and what is wrong is told at once.

Rights are those that docs/security.md tells to give, and no others.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError
from confluent_kafka.admin import AclBinding
from pydantic import SecretStr

from tests.support.certificates import NO_OPENSSL, Authority, encrypted, has_openssl
from tests.support.kafka_jars import KafkaUnavailableError
from tests.support.secured_kafka import ACL_FIELDS, PLAIN_USERS, SCRAM_USERS, SecuredKafka, rights_of_commands
from tests.support.stage import Stage, check_ledger
from tests.support.worker_process import ROOT, wait_until
from worker.core.failures import AccessRefusedError, ConfigurationError
from worker.kafka.connection import BrokerConnection, SaslCredentials, SaslMechanism, tls_context
from worker.kafka.rights import worker_rights
from worker.kafka.topics import ask_broker, wait_for_topics

pytestmark = [pytest.mark.broker, pytest.mark.skipif(not has_openssl(), reason=NO_OPENSSL)]

WORKER = "rugo-worker"
SECRETS = {*PLAIN_USERS.values(), *SCRAM_USERS.values()}
LONG_S = 60.0


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Iterator[SecuredKafka]:
    try:
        server = SecuredKafka(tmp_path_factory.mktemp("authority"), has_authorizer=True)
    except KafkaUnavailableError as error:
        pytest.skip(f"no Apache Kafka: {error}")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def kafka(secured) -> SecuredKafka:
    """Tests make topics and read back by its PLAINTEXT listener."""
    return secured


@pytest.fixture
def stage(stage, secured) -> Stage:
    """Topics of one test's own; the worker comes in by SASL_SSL, with the rights that the documentation tells to give."""
    stage.environment |= {
        "RUGO_BOOTSTRAP_SERVERS": secured.address("SASL_SSL"),
        "RUGO_SECURITY_PROTOCOL": "SASL_SSL",
        "RUGO_SASL_MECHANISM": "SCRAM-SHA-512",
        "RUGO_SASL_USERNAME": WORKER,
        "RUGO_SASL_PASSWORD": SCRAM_USERS[WORKER],
        "RUGO_TLS_CA_FILE": str(secured.authority.cert),
        "RUGO_BROKER_DEADLINE_S": str(LONG_S),
    }
    secured.allow(*documented_rights(stage))
    return stage


def documented_rights(stage: Stage) -> list[AclBinding]:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    names = stage.names
    for default, ours in (
        ("chat.messages.dlq", names.dead_letter),
        ("chat.messages", names.input),
        ("chat.emotions", names.emotions),
        ("chat.escalations", names.escalations),
        ("--group rugo-worker", f"--group {stage.group_id}"),  # and its `.dlq`
        ("--transactional-id rugo-worker-", f"--transactional-id {stage.group_id}-"),
    ):
        text = text.replace(default, ours)
    return list(rights_of_commands(text))


def worker_acls(stage: Stage) -> list[AclBinding]:
    return [each for each in documented_rights(stage) if each.principal == f"User:{WORKER}"]


def run(stage: Stage, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker", *command],
        env={**os.environ, **stage.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def user(secured: SecuredKafka, name: str = WORKER, *, password: str | None = None, mechanism: SaslMechanism = "SCRAM-SHA-512"):
    known = PLAIN_USERS if mechanism == "PLAIN" else SCRAM_USERS
    sasl = SaslCredentials(mechanism, name, SecretStr(password or known[name]))
    return BrokerConnection(secured.address("SASL_SSL"), tls_context(ca_file=secured.authority.cert), sasl)


def ends_with_a_sentence(stage: Stage, **environment: str) -> str:
    """Start a worker that can't work, and return what it says: soon, with exit code 1, and without any secret."""
    started_s = time.monotonic()
    worker = stage.start_worker(**environment)
    assert worker.wait(LONG_S) == 1, worker.log
    assert time.monotonic() - started_s < LONG_S / 2, worker.log
    assert "Traceback" not in worker.log
    assert [secret for secret in SECRETS if secret in worker.log] == []
    return worker.log.strip().splitlines()[-1]


def test_over_sasl_ssl_messages_come_out_labelled(stage):
    """A worker with a SCRAM password from a file, over TLS and under the authorizer: the ledger holds, with dead letters."""
    password_file = Path(stage.environment["RUGO_TLS_CA_FILE"]).with_name("password")
    password_file.write_text(stage.environment.pop("RUGO_SASL_PASSWORD") + "\n")
    stage.publish_chats(50)
    stage.publish(b"no JSON", key=b"chat-1")
    stage.publish(json.dumps({"message_id": "m", "chat_id": "angry", "text": "ужасно ужасно ужасно"}).encode(), key=b"angry")
    stage.flush()
    worker = stage.start_worker(RUGO_SASL_PASSWORD_FILE=str(password_file), RUGO_LOG_LEVEL="DEBUG")
    wait_until(lambda: len(stage.answered()) == 52, LONG_S, what=worker.log)
    check_ledger(stage)
    doctor = run(stage, "doctor", RUGO_SASL_PASSWORD_FILE=str(password_file), RUGO_LOG_LEVEL="DEBUG")
    assert doctor.returncode == 0, doctor.stdout
    worker.terminate()
    assert worker.wait() == 0, worker.log
    assert [secret for secret in SECRETS if secret in worker.log + doctor.stdout] == []


def test_over_mutual_tls_messages_come_out_labelled(secured, stage):
    """A worker whose certificate is all that it shows: its name in the certificate is the principal that has the rights."""
    certificate = secured.authority.issue(WORKER)
    for each in worker_acls(stage):
        values = [getattr(each, name) for name in ACL_FIELDS]
        secured.allow(AclBinding(*(f"User:CN={WORKER}" if value == each.principal else value for value in values)))
    for name in ("MECHANISM", "USERNAME", "PASSWORD"):
        del stage.environment[f"RUGO_SASL_{name}"]
    stage.publish_chats(20)
    stage.flush()
    worker = stage.start_worker(
        RUGO_BOOTSTRAP_SERVERS=secured.address("SSL"),
        RUGO_SECURITY_PROTOCOL="SSL",
        RUGO_TLS_CERT_FILE=str(certificate.cert),
        RUGO_TLS_KEY_FILE=str(encrypted(certificate.key, "key-password")),
        RUGO_TLS_KEY_PASSWORD="key-password",
    )
    wait_until(lambda: len(stage.answered()) == 20, LONG_S, what=worker.log)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
async def test_every_mechanism_lets_the_worker_in(secured, protocol, mechanism):
    """Ask for the topics with each mechanism, with and without TLS."""
    made = user(secured, mechanism=mechanism)
    connection = BrokerConnection(secured.address(protocol), made.tls if protocol == "SASL_SSL" else None, made.sasl)
    await ask_broker(connection, lambda admin: admin.list_topics(), deadline_s=LONG_S)


def test_a_wrong_password_ends_the_worker_at_once(stage):
    sentence = ends_with_a_sentence(stage, RUGO_SASL_PASSWORD="canary-of-a-wrong-password")
    assert f"refuses the SCRAM-SHA-512 credentials of user '{WORKER}'" in sentence
    assert "RUGO_SASL_PASSWORD" in sentence
    assert "canary" not in stage.workers[-1].log


def test_an_untrusted_broker_ends_the_worker_at_once(stage, tmp_path):
    sentence = ends_with_a_sentence(stage, RUGO_TLS_CA_FILE=str(Authority(tmp_path, "somebody else").cert))
    assert "is not trusted" in sentence
    assert "RUGO_TLS_CA_FILE" in sentence


def wrong_ways(secured: SecuredKafka, folder: Path) -> dict[str, tuple[BrokerConnection, str]]:
    ca, good, strangers = secured.authority.cert, user(secured), Authority(folder, "strangers")
    tls, of_stranger = tls_context(ca_file=ca), strangers.issue(WORKER)
    local = secured.address("MISNAMED").replace("127.0.0.1", "localhost")
    return {
        "wrong PLAIN password": (user(secured, password="no", mechanism="PLAIN"), "refuses the PLAIN credentials of user"),
        "unknown user": (user(secured, "who", password="no"), "refuses the SCRAM-SHA-512 credentials of user 'who'"),
        "the system's authorities": (BrokerConnection(good.addresses, tls_context(), good.sasl), "set RUGO_TLS_CA_FILE to"),
        "a name not in the certificate": (BrokerConnection(local, tls), "does not stand for the name localhost"),
        "brokers that name themselves otherwise": (
            BrokerConnection(secured.address("MISNAMED"), tls),
            "does not stand for the name localhost. Name the broker as its certificate does, in RUGO_BOOTSTRAP_SERVERS and "
            "in its advertised.listeners",
        ),
        "no certificate of its own": (BrokerConnection(secured.address("SSL"), tls), "set RUGO_TLS_CERT_FILE and"),
        "a stranger's certificate": (
            BrokerConnection(
                secured.address("SSL"), tls_context(ca_file=ca, cert_file=of_stranger.cert, key_file=of_stranger.key)
            ),
            "refuses the worker's certificate",
        ),
        "no TLS where it is spoken": (BrokerConnection(secured.address("SSL")), "speaks TLS there: set RUGO_SECURITY_PROTOCOL"),
        "TLS where it is not": (
            BrokerConnection(secured.bootstrap_servers, tls),
            "hangs up on SSL: set RUGO_SECURITY_PROTOCOL",
        ),
        "SASL where it is not asked for": (
            BrokerConnection(secured.bootstrap_servers, None, good.sasl),
            "asks for no SASL there",
        ),
        "no SASL where it is": (
            BrokerConnection(secured.address("SASL_SSL"), tls),
            "hangs up on SSL: set RUGO_SECURITY_PROTOCOL",
        ),
    }


async def test_whatever_keeps_the_worker_out_is_told_with_what_to_change(secured, tmp_path):
    """Come in by eleven wrong ways: each is refused within seconds, long before the deadline, by a sentence with its cure."""
    for what, (connection, sentence) in wrong_ways(secured, tmp_path).items():
        started_s = time.monotonic()
        with pytest.raises(AccessRefusedError) as refused:
            await ask_broker(connection, lambda admin: admin.list_topics(), deadline_s=LONG_S)
        assert sentence in str(refused.value), what
        assert time.monotonic() - started_s < LONG_S / 3, what


def test_a_key_that_its_password_does_not_open_is_told(secured):
    certificate = secured.authority.issue("locked")
    locked = encrypted(certificate.key, "key-password")
    for password, cure in ((None, "set RUGO_TLS_KEY_PASSWORD or"), ("canary", "mend RUGO_TLS_KEY_PASSWORD")):
        with pytest.raises(ConfigurationError, match=cure) as refused:
            tls_context(cert_file=certificate.cert, key_file=locked, key_password=SecretStr(password) if password else None)
        assert "canary" not in str(refused.value)
    other = secured.authority.issue("other")
    with pytest.raises(ConfigurationError, match=r"RUGO_TLS_CERT_FILE and RUGO_TLS_KEY_FILE: .*KEY_VALUES_MISMATCH"):
        tls_context(cert_file=certificate.cert, key_file=other.key)


async def test_with_any_right_missing_the_worker_does_not_begin_and_names_it(secured, stage):
    """Take each documented right away in turn: the start is refused and the sentence names exactly that right."""
    connection = user(secured)
    rights = worker_rights(stage.names, group_id=stage.group_id, uses_transactions=True)
    await wait_for_topics(connection, stage.names, deadline_s=LONG_S, rights=rights)
    options = {**connection.client_options(), "transactional_id": f"{stage.group_id}-any"}
    async with AIOKafkaProducer(**options) as producer, producer.transaction():
        await producer.send_and_wait(stage.names.emotions, b"{}")
        await producer.send_offsets_to_transaction({TopicPartition(stage.names.input, 0): 0}, stage.group_id)
    given = worker_acls(stage)
    assert sorted(
        (each.operation.name.title(), each.restype.name.lower().replace("_", "-"), each.name) for each in given
    ) == sorted((each.operation, each.kind, each.name) for each in rights)
    for each in given:
        secured.forbid(each)
        named = f"{each.operation.name.title()} on {each.restype.name.lower().replace('_', '-')} {each.name}"
        with pytest.raises(AccessRefusedError, match=r"docs/security\.md") as refused:
            await wait_for_topics(connection, stage.names, deadline_s=LONG_S, rights=rights)
        assert f"does not allow user '{WORKER}': {named}. " in str(refused.value)
        secured.allow(each)


def test_a_right_that_is_taken_away_ends_a_running_worker(secured, stage):
    """Forbid the dead-letter topic under an idle worker: it ends within seconds, and says what it may no longer do."""
    worker = stage.start_worker()
    worker.wait_until_assigned()
    (right,) = [each for each in worker_acls(stage) if each.name == stage.names.dead_letter]
    secured.forbid(right)
    assert worker.wait(LONG_S / 2) == 1, worker.log
    assert f"Write on topic {stage.names.dead_letter}" in worker.log.strip().splitlines()[-1]


async def test_chats_and_duty_desk_can_do_their_part_and_no_more(secured, stage):
    """With their documented rights the chats publish messages and the duty desk reads escalations, and not the reverse."""
    chats, desk = user(secured, "support-chats"), user(secured, "duty-desk")
    async with AIOKafkaProducer(**chats.client_options(), acks="all") as producer:
        await producer.send_and_wait(stage.names.input, b"{}")
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(stage.names.escalations, b"{}")
    options = {"group_id": "duty-desk", "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(stage.names.escalations, **desk.client_options(), **options) as consumer:
        assert await consumer.getmany(timeout_ms=500) == {}
        assert consumer.assignment()
    reader = AIOKafkaConsumer(stage.names.input, **desk.client_options(), **options)
    with pytest.raises(TopicAuthorizationFailedError):
        await reader.start()
    await reader.stop()


def test_dead_letters_are_listed_and_sent_back_with_the_operator_s_rights_alone(stage):
    """List and redrive as the operator of dead letters; as the worker the first is refused, by a sentence that says so."""
    stage.publish(b"no JSON", key=b"chat-1")
    stage.flush()
    stage.start_worker()
    wait_until(lambda: len(stage.answered()) == 1, LONG_S, what=stage.workers[-1].log)
    operator = {"RUGO_SASL_USERNAME": "dlq-operator", "RUGO_SASL_PASSWORD": SCRAM_USERS["dlq-operator"]}
    listed = run(stage, "dlq", "list", **operator)
    assert (listed.returncode, "not_json" in listed.stdout) == (0, True), listed.stdout
    redriven = run(stage, "dlq", "redrive", "--all", **operator)
    assert redriven.returncode == 0, redriven.stdout
    wait_until(lambda: len(stage.input_positions()) == 2, what="the letter is back")
    refused = run(stage, "dlq", "list")
    assert refused.returncode == 1
    assert "does not allow" in refused.stdout.strip().splitlines()[-1], refused.stdout


def test_a_wrong_password_ends_every_command_with_its_sentence(stage):
    """Run the commands that reach the broker with a wrong password: none waits, none shows it, each says what to mend."""
    for command in (("doctor",), ("dlq", "list"), ("topics", "create"), ("publish-demo",)):
        started_s = time.monotonic()
        ended = run(stage, *command, RUGO_SASL_PASSWORD="canary-of-a-wrong-password")
        assert ended.returncode == 1, ended.stdout
        assert f"credentials of user '{WORKER}'" in " ".join(ended.stdout.split()), ended.stdout
        assert "canary" not in ended.stdout
        assert time.monotonic() - started_s < LONG_S / 3
