"""Why a broker does not let the worker in. aiokafka keeps the reason to itself; here it is asked for and told in a sentence."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from worker.kafka.connection import BrokerConnection

_HOSTNAME_MISMATCH, _IP_MISMATCH, _EXPIRED = 62, 64, 10  # OpenSSL's verify codes
_TLS_ALERT = 0x1503  # how a TLS listener's answer to bytes that are not TLS begins


@dataclass(frozen=True, slots=True)
class AccessFault:
    """Why the worker is not let in, and what to change.

    Not `is_certain`: a broker that is just stopping looks alike, so ask again before you believe it.
    """

    sentence: str
    is_certain: bool = True


async def find_access_fault(connection: BrokerConnection, *, timeout_s: float) -> AccessFault | None:
    """Try every address once, and every broker that these tell of; return what keeps the worker out, if that can be told.

    Brokers that are merely away are no fault, nor is a wrong address while another lets the worker in.
    """
    given = [_split(each) for each in connection.addresses.split(",")]
    attempts = await asyncio.gather(*(_try(connection, *each, timeout_s=timeout_s) for each in given))
    open_doors = [each for each in attempts if isinstance(each, list)]
    if not open_doors:
        return _first_fault(attempts)
    named = {address for addresses in open_doors for address in addresses}.difference(given)
    return _first_fault(await asyncio.gather(*(_try(connection, *each, timeout_s=timeout_s) for each in sorted(named))))


Address = tuple[str, int]


def _split(address: str) -> Address:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _first_fault(attempts: Sequence[list[Address] | AccessFault | None]) -> AccessFault | None:
    faults = [each for each in attempts if isinstance(each, AccessFault)]
    return next((each for each in faults if each.is_certain), faults[0] if faults else None)


async def _try(connection: BrokerConnection, host: str, port: int, *, timeout_s: float) -> list[Address] | AccessFault | None:
    """Return the brokers that this one tells of, or what keeps the worker out; None when nobody is there."""
    options = connection.client_options()
    del options["bootstrap_servers"]
    try:
        async with asyncio.timeout(timeout_s):
            opened = await create_conn(host, port, client_id="rugo-worker", request_timeout_ms=int(timeout_s * 1000), **options)
            try:
                brokers = (await opened.send(MetadataRequest([]))).brokers
            finally:
                opened.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return _explain(error, connection, host=host, at=f"{host}:{port}")
    return [(each[1], each[2]) for each in brokers]


def _explain(error: BaseException, connection: BrokerConnection, *, host: str, at: str) -> AccessFault | None:
    for cause in (error, error.__cause__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate_fault(cause, host=host, at=at)
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            return _client_certificate_fault(cause, at=at)
    if isinstance(error, KafkaError) and (fault := _sasl_fault(error, connection, at=at)):
        return fault
    return _protocol_fault(error, connection, at=at)


def _certificate_fault(error: ssl.SSLCertVerificationError, *, host: str, at: str) -> AccessFault:
    if error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return AccessFault(
            f"the certificate of the broker at {at} does not stand for the name {host}. Name the broker as its certificate "
            "does, in RUGO_BOOTSTRAP_SERVERS and in its advertised.listeners, or give it a certificate with this name."
        )
    if error.verify_code == _EXPIRED:
        return AccessFault(
            f"the certificate of the broker at {at} has expired: give it a new one, or mend this machine's clock."
        )
    return AccessFault(
        f"the certificate of the broker at {at} is not trusted ({error.verify_message}): set RUGO_TLS_CA_FILE to the "
        "certificate of the authority that signed it."
    )


def _client_certificate_fault(error: ssl.SSLError, *, at: str) -> AccessFault:
    return AccessFault(
        f"the broker at {at} refuses the worker's certificate, or that it has none ({error.reason}): set RUGO_TLS_CERT_FILE "
        "and RUGO_TLS_KEY_FILE to a certificate that an authority trusted by the broker signed, and its key."
    )


def _sasl_fault(error: KafkaError, connection: BrokerConnection, *, at: str) -> AccessFault | None:
    mechanism, user = (connection.sasl.mechanism, connection.sasl.username) if connection.sasl else ("", "")
    if isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError):
        return AccessFault(
            f"the broker at {at} refuses the {mechanism} credentials of user {user!r}: mend RUGO_SASL_USERNAME and "
            "RUGO_SASL_PASSWORD (or RUGO_SASL_PASSWORD_FILE), or choose another RUGO_SASL_MECHANISM."
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return AccessFault(f"the broker at {at} does not offer {mechanism}: choose another RUGO_SASL_MECHANISM.")
    if isinstance(error, IllegalSaslStateError):
        return AccessFault(
            f"the broker at {at} asks for no SASL there: set RUGO_SECURITY_PROTOCOL to "
            f"{'SSL' if connection.tls else 'PLAINTEXT'}, or RUGO_BOOTSTRAP_SERVERS to its SASL listener."
        )
    return None


def _protocol_fault(error: BaseException, connection: BrokerConnection, *, at: str) -> AccessFault | None:
    cause = error.__cause__ if isinstance(error, KafkaConnectionError) else error
    if isinstance(cause, asyncio.IncompleteReadError):
        if (cause.expected or 0) >> 16 == _TLS_ALERT:
            return AccessFault(
                f"the broker at {at} speaks TLS there: set RUGO_SECURITY_PROTOCOL to SSL or SASL_SSL, or "
                "RUGO_BOOTSTRAP_SERVERS to another listener."
            )
        return _hang_up(connection, at=at)
    if connection.tls is not None and isinstance(cause, ssl.SSLError | ConnectionResetError):
        return _hang_up(connection, at=at)
    return None


def _hang_up(connection: BrokerConnection, *, at: str) -> AccessFault:
    return AccessFault(
        f"the broker at {at} hangs up on {connection.protocol}: set RUGO_SECURITY_PROTOCOL to what its listener there speaks, "
        "or RUGO_BOOTSTRAP_SERVERS to another listener.",
        is_certain=False,
    )
