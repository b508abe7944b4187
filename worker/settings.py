"""Every setting, read from environment variables with the prefix RUGO_, described once: the README's table is made of this."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.core.drift import LabelBaseline
from worker.core.escalation import EscalationPolicy, parse_escalation_policy
from worker.core.failures import ConfigurationError
from worker.core.records import TopicNames
from worker.inference.model_bundle import DEFAULT_BUNDLE
from worker.kafka.connection import BrokerConnection, SaslCredentials, SaslMechanism, SecurityProtocol, read_secret, tls_context
from worker.telemetry.logs import LogFormat

PREFIX = "RUGO_"
_NEEDS = (("TLS_KEY_FILE", "TLS_CERT_FILE"), ("TLS_CERT_FILE", "TLS_KEY_FILE"), ("TLS_KEY_PASSWORD", "TLS_KEY_FILE"))
SECRETS = ("sasl_password", "tls_key_password")
_ADDRESS = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:]+\]):\d{1,5}", re.ASCII)
_HOST_NAMES = r"^[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*$"
_LONGEST_TRANSACTION_S = 900
DEFAULT_POLICY = Path(__file__).with_name("escalation_policy.toml")


class Settings(BaseSettings):
    """The worker's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, `host:port` separated by commas")
    security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", description="how brokers are reached: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"
    )
    sasl_mechanism: SaslMechanism | None = Field(
        None, description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; only with a SASL protocol"
    )
    sasl_username: str | None = Field(None, min_length=1, description="user name of SASL")
    sasl_password: SecretStr | None = Field(None, min_length=1, description="password of SASL; never printed")
    sasl_password_file: Path | None = Field(None, description="file that holds the password of SASL, instead of the variable")
    tls_ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; the system's by default")
    tls_cert_file: Path | None = Field(None, description="PEM file of the client certificate (mutual TLS)")
    tls_key_file: Path | None = Field(None, description="PEM file of the client certificate's private key")
    tls_key_password: SecretStr | None = Field(None, min_length=1, description="password of that key; never printed")
    tls_key_password_file: Path | None = Field(None, description="file that holds the password of that key")
    group_id: str = Field("rugo-worker", min_length=1, description="consumer group; workers of one group share the partitions")
    input_topic: str = Field("chat.messages", min_length=1, description="topic that is read")
    emotions_topic: str = Field("chat.emotions", min_length=1, description="topic of the emotion events")
    escalations_topic: str = Field("chat.escalations", min_length=1, description="topic of the escalation events")
    dead_letter_topic: str = Field("chat.messages.dlq", min_length=1, description="topic of what could not be read")
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="`at_least_once`, or `exactly_once` for consumers that read committed records only"
    )
    model: Path = Field(DEFAULT_BUNDLE, description="folder of the model bundle; the shipped one by default")
    escalation_policy: Path = Field(DEFAULT_POLICY, description="TOML file of the escalation policy")
    publish_probabilities: bool = Field(False, description="add all 28 probabilities to every emotion event")
    max_poll_records: int = Field(256, ge=1, le=10_000, description="most records taken from Kafka at once")
    max_padded_tokens: int = Field(1024, ge=128, description="micro-batch budget: texts times the longest one's tokens")
    max_micro_batch: int = Field(32, ge=1, description="most texts in a micro-batch")
    inference_threads: int = Field(
        0, ge=0, description="threads of the model; 0 takes every core that affinity and the container's CPU limit leave"
    )
    cache_texts: int = Field(
        10_000, ge=0, description="short texts whose answers are remembered, about half a kilobyte each; 0 turns it off"
    )
    max_rejected_share: float = Field(
        0.5, gt=0.0, le=1.0, description="the worker stops when more of the last 1000 records are rejected; 1 never stops"
    )
    max_remembered_chats: int = Field(50_000, ge=1, description="chats that the escalation policy remembers at most")
    broker_deadline_s: float = Field(60.0, ge=1.0, description="seconds without a broker after which the worker exits")
    stall_deadline_s: float = Field(
        120.0,
        ge=1.0,
        description="seconds that records may wait without progress before /live fails; at least `RUGO_BROKER_DEADLINE_S`",
    )
    stop_deadline_s: float = Field(20.0, ge=1.0, description="seconds that a stop may take before it is cut")
    fetch_max_wait_ms: int = Field(100, ge=1, le=5000, description="longest wait of the broker before it answers a fetch")
    session_timeout_ms: int = Field(30_000, ge=6000, description="silence after which the group takes a worker for dead")
    rebalance_timeout_ms: int = Field(60_000, ge=6000, description="time that workers have to drain in a rebalance")
    drift_window: int = Field(
        10_000, ge=0, description="newest client messages whose emotions are compared with the baseline; 0 measures no drift"
    )
    drift_baseline: Path | None = Field(
        None, description="file of the baseline, from `rugo-worker baseline`; the model bundle's by default"
    )
    otel_endpoint: str | None = Field(
        None, min_length=1, description="OTLP/HTTP endpoint of traces, such as `http://collector:4318`; needs the extra `otel`"
    )
    http_host: str = Field("127.0.0.1", min_length=1, description="address of /live, /ready, /metrics and /asyncapi.json")
    http_port: int = Field(8080, ge=0, le=65_535, description="their port; 0 takes any free one")
    board_host: str = Field("127.0.0.1", min_length=1, description="address of the live board")
    board_port: int = Field(8090, ge=0, le=65_535, description="its port; 0 takes any free one")
    board_names: str | None = Field(
        None,
        pattern=_HOST_NAMES,
        description="names by which browsers may ask for the board, separated by commas, besides `localhost`; "
        "by default none on loopback, any elsewhere",
    )
    board_show_texts: bool = Field(
        False, description="show the chats' last messages on the board; otherwise it never reads the input topic"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level that is logged")
    log_format: LogFormat = Field("json", description="`json` or `console`")

    @property
    def topic_names(self) -> TopicNames:
        """The names of the four topics."""
        return TopicNames(
            input=self.input_topic,
            emotions=self.emotions_topic,
            escalations=self.escalations_topic,
            dead_letter=self.dead_letter_topic,
        )

    @property
    def broker_connection(self) -> BrokerConnection:
        """How the brokers are reached. Raises `ConfigurationError` when a file of a certificate or secret can't be used."""
        sasl = tls = None
        if self.security_protocol.startswith("SASL"):
            password = _secret(self.sasl_password, self.sasl_password_file, variable=f"{PREFIX}SASL_PASSWORD_FILE")
            if self.sasl_mechanism and self.sasl_username and password:  # always, once validated
                sasl = SaslCredentials(self.sasl_mechanism, self.sasl_username, password)
        if self.security_protocol.endswith("SSL"):
            tls = tls_context(
                ca_file=self.tls_ca_file,
                cert_file=self.tls_cert_file,
                key_file=self.tls_key_file,
                key_password=_secret(
                    self.tls_key_password, self.tls_key_password_file, variable=f"{PREFIX}TLS_KEY_PASSWORD_FILE"
                ),
            )
        return BrokerConnection(self.bootstrap_servers, tls, sasl)

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_addresses(cls, value: str) -> str:
        for address in value.split(","):
            if not _ADDRESS.fullmatch(address.strip()):
                raise ValueError("must be host:port, several separated by commas, such as kafka-1:9092,kafka-2:9092")
        return ",".join(address.strip() for address in value.split(","))

    @model_validator(mode="after")
    def _check_what_belongs_together(self) -> "Settings":
        topics = (self.input_topic, self.emotions_topic, self.escalations_topic, self.dead_letter_topic)
        if len(set(topics)) < len(topics):
            raise ValueError("the four topics must have four different names")
        if self.delivery == "exactly_once":
            _check_transactions(self)
        _check_security(self)
        return self


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment. Raises `ConfigurationError` naming the variable and what it must be."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("invalid settings: " + "; ".join(_problems(error))) from error


def _secret(value: SecretStr | None, path: Path | None, *, variable: str) -> SecretStr | None:
    return value if path is None else read_secret(path, variable=variable)


def _check_transactions(settings: Settings) -> None:
    """Refuse what would make a transaction outlive what brokers allow one."""
    longest_s = settings.broker_deadline_s + settings.session_timeout_ms / 1000
    if longest_s > _LONGEST_TRANSACTION_S:
        raise ValueError(
            f"{PREFIX}DELIVERY=exactly_once keeps a transaction for up to {PREFIX}BROKER_DEADLINE_S and "
            f"{PREFIX}SESSION_TIMEOUT_MS, together {longest_s:g} s: make that {_LONGEST_TRANSACTION_S} s at most, which is "
            "what brokers allow a transaction (transaction.max.timeout.ms)"
        )


def _check_security(settings: Settings) -> None:
    """Refuse combinations that can't be meant, each with the variable to set or unset."""
    given = {name.upper() for name in settings.model_fields_set if getattr(settings, name) is not None}
    protocol = settings.security_protocol
    sasl = {name for name in given if name.startswith("SASL_")}
    tls = {name for name in given if name.startswith("TLS_")}
    if sasl and not protocol.startswith("SASL"):
        raise ValueError(f"{PREFIX}SECURITY_PROTOCOL={protocol} takes no {_named(sasl)}: set it to SASL_SSL or SASL_PLAINTEXT")
    if tls and not protocol.endswith("SSL"):
        raise ValueError(f"{PREFIX}SECURITY_PROTOCOL={protocol} takes no {_named(tls)}: set it to SSL or SASL_SSL")
    for secret in ("SASL_PASSWORD", "TLS_KEY_PASSWORD"):
        if given.issuperset((secret, f"{secret}_FILE")):
            raise ValueError(f"set {PREFIX}{secret} or {PREFIX}{secret}_FILE, not both")
        given |= {secret} if f"{secret}_FILE" in given else set()
    if protocol.startswith("SASL") and (missing := {"SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD"} - given):
        raise ValueError(f"{PREFIX}SECURITY_PROTOCOL={protocol} needs {_named(missing)}")
    for name, needed in _NEEDS:
        if name in given and needed not in given:
            raise ValueError(f"{PREFIX}{name} needs {PREFIX}{needed}")


def _named(names: set[str]) -> str:
    return " and ".join(PREFIX + name for name in sorted(names))


def read_escalation_policy(path: Path) -> EscalationPolicy:
    """Return the escalation policy of a file. Raises `ConfigurationError`."""
    try:
        return parse_escalation_policy(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{PREFIX}ESCALATION_POLICY: can't read {path}: {error}") from error


def read_drift_baseline(path: Path) -> LabelBaseline:
    """Return the baseline of a file. Raises `ConfigurationError`."""
    try:
        return LabelBaseline.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ConfigurationError(
            f"{PREFIX}DRIFT_BASELINE: {path} is no baseline ({why}). Make one: `python -m worker baseline --help`."
        ) from error


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False):
        name = f"{PREFIX}{str(each['loc'][0]).upper()}: " if each["loc"] else ""
        got = f" (got {each['input']!r})" if each["loc"] and each["loc"][0] not in SECRETS else ""
        yield f"{name}{each['msg'].removeprefix('Value error, ')}{got}"


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Return the RUGO_ variables that are no setting, each with the nearest one that is."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)), None) for name in unknown}


def settings_in_force(settings: Settings) -> dict[str, str]:
    """Return the settings that were set, by the name of their variable; secrets are masked."""
    return {f"{PREFIX}{name.upper()}": str(getattr(settings, name)) for name in sorted(settings.model_fields_set)}


def settings_table() -> str:
    """Return the settings as a Markdown table."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = default.relative_to(Path(__file__).resolve().parents[1])
        shown = "" if default is None else f"`{default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)
