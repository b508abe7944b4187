import ast
from pathlib import Path

import pytest

import worker
from worker.core.failures import ConfigurationError
from worker.kafka.connection import BrokerConnection
from worker.settings import load_settings

PASSWORD = "correct-horse-battery"
SASL = {
    "RUGO_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "RUGO_SASL_MECHANISM": "SCRAM-SHA-512",
    "RUGO_SASL_USERNAME": "worker",
    "RUGO_SASL_PASSWORD": PASSWORD,
}


@pytest.fixture
def environment(monkeypatch):
    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_without_settings_nothing_is_secured(environment):
    environment(RUGO_BOOTSTRAP_SERVERS="kafka-1:9092,kafka-2:9092")
    connection = load_settings().broker_connection
    assert connection.client_options() == {
        "bootstrap_servers": ["kafka-1:9092", "kafka-2:9092"],
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }
    assert str(connection) == "kafka-1:9092,kafka-2:9092"


def test_credentials_reach_the_clients_and_no_text(environment):
    environment(**SASL)
    settings = load_settings()
    connection = settings.broker_connection
    options = connection.client_options()
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == ("SCRAM-SHA-512", "worker")
    assert options["sasl_plain_password"] == PASSWORD
    for text in (repr(settings), repr(connection), str(connection), settings.model_dump_json()):
        assert PASSWORD not in text


def test_the_password_may_come_from_a_file_whose_last_newline_is_not_its_own(environment, monkeypatch, tmp_path):
    environment(**SASL)
    monkeypatch.delenv("RUGO_SASL_PASSWORD")
    (tmp_path / "password").write_text(f" {PASSWORD} \n")
    environment(RUGO_SASL_PASSWORD_FILE=str(tmp_path / "password"))
    assert load_settings().broker_connection.client_options()["sasl_plain_password"] == f" {PASSWORD} "


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"RUGO_SECURITY_PROTOCOL": "TLS"}, "RUGO_SECURITY_PROTOCOL: "),
        (
            {"RUGO_SECURITY_PROTOCOL": "PLAINTEXT", "RUGO_SASL_USERNAME": "worker"},
            "takes no RUGO_SASL_USERNAME: set it to SASL_",
        ),
        ({"RUGO_SASL_PASSWORD": PASSWORD}, "RUGO_SECURITY_PROTOCOL=PLAINTEXT takes no RUGO_SASL_PASSWORD"),
        ({"RUGO_TLS_CA_FILE": "ca.pem"}, "takes no RUGO_TLS_CA_FILE: set it to SSL or SASL_SSL"),
        ({**SASL, "RUGO_SASL_USERNAME": ""}, "RUGO_SECURITY_PROTOCOL=SASL_PLAINTEXT needs RUGO_SASL_USERNAME"),
        ({**SASL, "RUGO_SASL_PASSWORD": ""}, "RUGO_SECURITY_PROTOCOL=SASL_PLAINTEXT needs RUGO_SASL_PASSWORD"),
        ({**SASL, "RUGO_SASL_MECHANISM": ""}, "RUGO_SECURITY_PROTOCOL=SASL_PLAINTEXT needs RUGO_SASL_MECHANISM"),
        ({**SASL, "RUGO_SASL_MECHANISM": "GSSAPI"}, "RUGO_SASL_MECHANISM: "),
        ({**SASL, "RUGO_SASL_PASSWORD_FILE": "f"}, "set RUGO_SASL_PASSWORD or RUGO_SASL_PASSWORD_FILE, not both"),
        ({"RUGO_SECURITY_PROTOCOL": "SSL", "RUGO_TLS_KEY_FILE": "key.pem"}, "RUGO_TLS_KEY_FILE needs RUGO_TLS_CERT_FILE"),
        ({"RUGO_SECURITY_PROTOCOL": "SSL", "RUGO_TLS_CERT_FILE": "cert.pem"}, "RUGO_TLS_CERT_FILE needs RUGO_TLS_KEY_FILE"),
        ({"RUGO_SECURITY_PROTOCOL": "SSL", "RUGO_TLS_KEY_PASSWORD": PASSWORD}, "RUGO_TLS_KEY_PASSWORD needs RUGO_TLS_KEY_FILE"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_variable_to_mend(environment, variables, sentence):
    environment(**variables)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert sentence in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("variable", ["RUGO_TLS_CA_FILE", "RUGO_TLS_CERT_FILE", "RUGO_TLS_KEY_FILE"])
def test_a_certificate_file_that_is_not_there_is_named(environment, tmp_path, variable):
    (tmp_path / "some.pem").write_text("no PEM")
    files = dict.fromkeys(("RUGO_TLS_CERT_FILE", "RUGO_TLS_KEY_FILE"), str(tmp_path / "some.pem"))
    environment(**{"RUGO_SECURITY_PROTOCOL": "SSL", **files, variable: str(tmp_path / "absent.pem")})
    with pytest.raises(ConfigurationError, match=rf"{variable}: can't read .*absent\.pem: No such file"):
        _ = load_settings().broker_connection


def test_files_that_are_no_certificates_are_named(environment, tmp_path):
    (tmp_path / "some.pem").write_text("no PEM")
    environment(RUGO_SECURITY_PROTOCOL="SSL", RUGO_TLS_CA_FILE=str(tmp_path / "some.pem"))
    with pytest.raises(ConfigurationError, match=r"RUGO_TLS_CA_FILE: .*some\.pem holds no PEM certificate"):
        _ = load_settings().broker_connection


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_a_password_file_without_a_password_is_refused(environment, monkeypatch, tmp_path, content):
    environment(**SASL)
    monkeypatch.delenv("RUGO_SASL_PASSWORD")
    (tmp_path / "password").write_bytes(content)
    environment(RUGO_SASL_PASSWORD_FILE=str(tmp_path / "password"))
    with pytest.raises(ConfigurationError, match="RUGO_SASL_PASSWORD_FILE"):
        _ = load_settings().broker_connection


def test_tls_verifies_the_host_name_and_begins_at_version_1_2(environment):
    environment(RUGO_SECURITY_PROTOCOL="SSL")
    context = load_settings().broker_connection.client_options()["ssl_context"]
    assert (context.check_hostname, context.verify_mode.name) == (True, "CERT_REQUIRED")
    assert context.minimum_version.name == "TLSv1_2"


def test_a_connection_without_security_needs_nothing_but_addresses():
    assert BrokerConnection("localhost:9092").protocol == "PLAINTEXT"


def test_every_client_of_the_worker_is_made_with_the_options_of_a_connection():
    made = [
        (path.name, ast.unparse(node))
        for path in Path(worker.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("AIOKafka")
    ]
    assert len(made) >= 5
    assert [(name, call) for name, call in made if "client_options()" not in call and "**options" not in call] == []
