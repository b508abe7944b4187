"""How every client of the worker reaches the brokers: their addresses, TLS and the credentials, in one value.

It knows no Kafka library, so that the settings can make it. `Settings.broker_connection` does; whoever makes a client takes a
`BrokerConnection` and hands its options on, never an address alone.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import SecretStr

from worker.core.failures import ConfigurationError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MECHANISMS: tuple[str, ...] = get_args(SaslMechanism)


@dataclass(frozen=True, slots=True)
class SaslCredentials:
    """Who the worker says it is. The password is in no repr."""

    mechanism: SaslMechanism
    username: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class BrokerConnection:
    """Addresses and security of the brokers: `BrokerConnection("kafka-1:9092,kafka-2:9092")` is one without security.

    - `AIOKafkaProducer(**connection.client_options(), acks="all", ...)`: so for a consumer and an admin client too.
    - Its text is the addresses alone, for sentences; neither text nor repr holds a secret.
    - With `tls` the broker's certificate and host name are always verified.
    """

    addresses: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    sasl: SaslCredentials | None = None

    @property
    def protocol(self) -> SecurityProtocol:
        """Kafka's name for this kind of connection."""
        if self.sasl is None:
            return "PLAINTEXT" if self.tls is None else "SSL"
        return "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL"

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments with which any aiokafka client reaches these brokers. They hold the password."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.addresses.split(","),
            "security_protocol": self.protocol,
            "ssl_context": self.tls,
        }
        if self.sasl is not None:
            options["sasl_mechanism"] = self.sasl.mechanism
            options["sasl_plain_username"] = self.sasl.username
            options["sasl_plain_password"] = self.sasl.password.get_secret_value()
        return options

    def __str__(self) -> str:
        return self.addresses


def tls_context(
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    key_password: SecretStr | None = None,
) -> ssl.SSLContext:
    """Return what TLS connections need: verified certificate and host name, TLS 1.2 or later, a client certificate if given.

    Without `ca_file` the system's authorities are trusted. Raises `ConfigurationError` that names the variable to mend.
    """
    _check_readable(RUGO_TLS_CA_FILE=ca_file, RUGO_TLS_CERT_FILE=cert_file, RUGO_TLS_KEY_FILE=key_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigurationError(f"RUGO_TLS_CA_FILE: {ca_file} holds no PEM certificate ({error.reason}).") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None and key_file is not None:
        _load_client_certificate(context, cert_file, key_file, key_password)
    return context


def read_secret(path: Path, *, variable: str) -> SecretStr:
    """Return the secret that a file holds, without the newline that ends it. Raises `ConfigurationError`."""
    try:
        secret = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable}: can't read {path}: {_why(error)}.") from error
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigurationError(f"{variable}: {path} is empty; it must hold the secret and nothing else.")
    return SecretStr(secret)


def _check_readable(**files: Path | None) -> None:
    for variable, path in files.items():
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{variable}: can't read {path}: {_why(error)}.") from error


def _load_client_certificate(context: ssl.SSLContext, cert: Path, key: Path, key_password: SecretStr | None) -> None:
    was_asked = False

    def password() -> str:
        # Without a function of ours OpenSSL would ask on the terminal, and wait.
        nonlocal was_asked
        was_asked = True
        return key_password.get_secret_value() if key_password else ""

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if was_asked:
            mend = "mend RUGO_TLS_KEY_PASSWORD" if key_password else "set RUGO_TLS_KEY_PASSWORD or RUGO_TLS_KEY_PASSWORD_FILE"
            raise ConfigurationError(f"RUGO_TLS_KEY_FILE: {key} is encrypted and does not open: {mend}.") from error
        reason = error.reason or "no PEM"
        raise ConfigurationError(
            f"RUGO_TLS_CERT_FILE and RUGO_TLS_KEY_FILE: {cert} and {key} are no PEM certificate and its private key ({reason})."
        ) from error


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8"
