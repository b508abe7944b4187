import pytest

from worker.core.failures import ConfigurationError
from worker.settings import Settings, load_settings, read_escalation_policy, settings_table, unknown_variables

FIXED_NAMES = [
    "BOOTSTRAP_SERVERS", "GROUP_ID", "INPUT_TOPIC", "EMOTIONS_TOPIC", "ESCALATIONS_TOPIC", "DEAD_LETTER_TOPIC",
    "MODEL", "DELIVERY", "HTTP_HOST", "HTTP_PORT",
]  # fmt: skip


def test_the_contracts_names_and_defaults_hold(monkeypatch):
    for name in FIXED_NAMES:
        monkeypatch.delenv(f"RUGO_{name}", raising=False)
    assert {name.lower() for name in FIXED_NAMES} <= set(Settings.model_fields)
    names = load_settings().topic_names
    assert names.all == ("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUGO_HTTP_PORT", "eighty"),
        ("RUGO_HTTP_PORT", "70000"),
        ("RUGO_BOOTSTRAP_SERVERS", "kafka"),
        ("RUGO_BOOTSTRAP_SERVERS", "kafka:9092,,other:9092"),
        ("RUGO_DELIVERY", "at_most_once"),
        ("RUGO_MAX_REJECTED_SHARE", "0"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variables_name(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()


def test_topics_must_differ(monkeypatch):
    monkeypatch.setenv("RUGO_EMOTIONS_TOPIC", "chat.messages")
    with pytest.raises(ConfigurationError, match="different names"):
        load_settings()


def test_exactly_once_takes_no_deadline_that_outlives_a_transaction(monkeypatch):
    monkeypatch.setenv("RUGO_DELIVERY", "exactly_once")
    assert load_settings().delivery == "exactly_once"
    monkeypatch.setenv("RUGO_BROKER_DEADLINE_S", "900")
    with pytest.raises(ConfigurationError, match="RUGO_BROKER_DEADLINE_S"):
        load_settings()


def test_a_misspelt_variable_is_noticed_with_the_nearest_name():
    found = unknown_variables({"RUGO_BOOTSTRAP_SERVER": "x", "RUGO_GROUP_ID": "g", "RUGO_XYZ": "1", "HOME": "/"})
    assert found == {"RUGO_BOOTSTRAP_SERVER": "RUGO_BOOTSTRAP_SERVERS", "RUGO_XYZ": None}


def test_the_table_has_a_row_for_every_setting():
    table = settings_table()
    assert all(f"| `RUGO_{name.upper()}` |" in table for name in Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_a_policy_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="RUGO_ESCALATION_POLICY"):
        read_escalation_policy(tmp_path / "none.toml")
