"""A real Apache Kafka that asks who is there: TLS, mutual TLS, SASL and, if wanted, the authorizer.

Its PLAINTEXT listener stays and is the administrator's: tests create topics, users and rights there, and read back.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.support.certificates import Authority
from tests.support.kafka_jars import usable_jars
from tests.support.kafka_server import KafkaServer
from tests.support.processes import free_ports

PLAIN_USERS = {"rugo-worker": "plain-secret-of-rugo-worker"}
SCRAM_USERS = {user: f"scram-secret-of-{user}" for user in ("rugo-worker", "support-chats", "duty-desk", "dlq-operator")}

_LISTENERS = ("SASL_SSL", "SASL_PLAINTEXT", "SSL", "MISNAMED")
_AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecuredKafka(KafkaServer):
    """`address(name)` is where a listener is reached.

    - `SASL_SSL`, `SASL_PLAINTEXT`: PLAIN and SCRAM users.
    - `SSL`: asks for a client certificate that the authority signed.
    - `MISNAMED`: TLS, and tells clients to go on to `localhost`, for which its certificate does not stand.
    - With `has_authorizer` only what ACLs allow is allowed, except to the administrator.
    """

    def __init__(self, folder: Path, *, has_authorizer: bool = False) -> None:
        """Raises `KafkaUnavailableError` where none can be had from jars."""
        jars = usable_jars()
        own, controller, *others = free_ports(2 + len(_LISTENERS))
        self._ports = dict(zip(_LISTENERS, others, strict=True))
        self.authority = Authority(folder)
        keys = self.authority.issue("broker", alternatives="IP:127.0.0.1").both
        settings = _listeners(own, controller, self._ports) | _tls(keys, self.authority.cert) | _sasl()
        super().__init__(jars, settings=settings | (_AUTHORIZER if has_authorizer else {}), ports=(own, controller))

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self) -> None:
        super().start()
        admin = self._admin()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            how = ScramCredentialInfo(mechanism, 4096)
            users = [UserScramCredentialUpsertion(user, how, password.encode()) for user, password in SCRAM_USERS.items()]
            for done in admin.alter_user_scram_credentials(users).values():
                done.result(30)

    def allow(self, *rights: AclBinding) -> None:
        admin = self._admin()
        for done in admin.create_acls(list(rights)).values():
            done.result(30)

    def forbid(self, right: AclBinding) -> None:
        """Take a right away that was given."""
        exactly = AclBindingFilter(*(getattr(right, name) for name in ACL_FIELDS))
        admin = self._admin()
        for done in admin.delete_acls([exactly]).values():
            assert len(done.result(30)) == 1

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})


def _listeners(own: int, controller: int, others: Mapping[str, int]) -> dict[str, str]:
    plain = f"PLAINTEXT://127.0.0.1:{own}"
    named = [f"{name}://127.0.0.1:{port}" for name, port in others.items()]
    advertised = [each.replace("127.0.0.1", "localhost") if each.startswith("MISNAMED") else each for each in named]
    return {
        "listeners": ",".join([plain, f"CONTROLLER://127.0.0.1:{controller}", *named]),
        "advertised.listeners": ",".join([plain, *advertised]),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,MISNAMED:SSL",
    }


def _tls(keys: Path, authority: Path) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keys),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority),
        "listener.name.ssl.ssl.client.auth": "required",
    }


def _sasl() -> dict[str, str]:
    users = " ".join(f'user_{user}="{password}"' for user, password in PLAIN_USERS.items())
    settings = {"sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"}
    for listener in ("sasl_ssl", "sasl_plaintext"):
        settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = f"{_PLAIN} required {users};"
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = f"{_SCRAM} required;"
    return settings


ACL_FIELDS = ("restype", "name", "resource_pattern_type", "principal", "host", "operation", "permission_type")
_ACL_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def rights_of_commands(text: str) -> Iterator[AclBinding]:
    """Yield what the `kafka-acls.sh --add` commands in a text would allow."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("kafka-acls.sh"):
            yield from _rights_of_command(line)


def _rights_of_command(line: str) -> Iterator[AclBinding]:
    given = re.findall(r"--([a-z-]+) ([^-\s]\S*)", line)
    (principal,) = [value for name, value in given if name == "allow-principal"]
    pattern = ResourcePatternType.PREFIXED if ("resource-pattern-type", "prefixed") in given else ResourcePatternType.LITERAL
    for operation in [value for name, value in given if name == "operation"]:
        for kind, value in given:
            if kind in _ACL_RESOURCES:
                allowed = AclOperation[operation.upper()]
                yield AclBinding(_ACL_RESOURCES[kind], value, pattern, principal, "*", allowed, AclPermissionType.ALLOW)
