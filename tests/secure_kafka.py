"""A Kafka broker that asks who you are and lets nobody do what was not granted, with certificates made for it.

Beside the plain listener, whose clients may do everything, there is one for each way of connecting. A user's password
is `password_of` its name, for every mechanism. The listener `SSL` wants a client's certificate.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kafka_broker import HOST, KafkaBroker, free_port
from tollgate.log.kafka_access import OPERATIONS, Access
from tollgate.log.kafka_security import Security
from tollgate.secret import Secret

LISTENERS = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# Kafka's numbers (org.apache.kafka.common).
TOPIC, GROUP, LITERAL = 2, 3, 3
DENY, ALLOW = 2, 3
CREATE, ALTER_CONFIGS = 5, 11

_MODULES = "org.apache.kafka.common.security"


class SecureKafka:
    """The broker; certificates and keys lie in `folder` as `<name>.pem` and `<name>.key`."""

    def __init__(self, folder: Path, users: Iterable[str]) -> None:
        self.folder = folder
        authority = Authority("authority", folder)
        for name in ("broker", "client"):
            authority.issue(name)
        Authority("stranger", folder)
        (folder / "store.pem").write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())
        ports = {name: free_port() for name in LISTENERS}
        self._broker = KafkaBroker(
            listeners=ports, settings=_settings(folder, users), users={user: password_of(user) for user in users}
        )
        self.plain = self._broker.address
        self.addresses = {name: f"{HOST}:{port}" for name, port in ports.items()}

    def start(self) -> None:
        """Raises `KafkaUnavailable`."""
        self._broker.start()

    def stop(self) -> None:
        self._broker.stop()

    def user(self, name: str, *, protocol: Any = "SASL_SSL", mechanism: Any = "SCRAM-SHA-512") -> Security:
        """How the user connects to the listener of that name."""
        return Security(
            protocol=protocol,
            mechanism=mechanism,
            username=name,
            password=Secret(password_of(name)),
            ca_file=self.file("authority.pem") if protocol == "SASL_SSL" else None,
        )

    def file(self, name: str) -> str:
        return str(self.folder / name)

    async def grant(self, user: str, access: Access) -> None:
        """Let the user do exactly this, beside what was granted before."""
        for topic, operations in access.topics.items():
            await self.grant_raw(user, TOPIC, topic, *(OPERATIONS[operation] for operation in operations))
        for group in access.groups:
            await self.grant_raw(user, GROUP, group, OPERATIONS["Read"])

    async def grant_raw(self, user: str, kind: int, name: str, *operations: int, permission: int = ALLOW) -> None:
        connection = await create_conn(*self.plain.split(":"))
        try:
            for operation in operations:
                request = CreateAclsRequest(kind, name, LITERAL, f"User:{user}", "*", operation, permission)
                (result,) = (await connection.send(request)).creation_responses
                assert result[0] == 0, result
        finally:
            await connection.close()


def password_of(user: str) -> str:
    return f"not-to-be-seen-{user}"


def _settings(folder: Path, users: Iterable[str]) -> dict[str, object]:
    plain = " ".join(f'user_{user}="{password_of(user)}"' for user in users)
    settings: dict[str, object] = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "store.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / "authority.pem",
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        prefix = f"listener.name.{listener}"
        settings[f"{prefix}.plain.sasl.jaas.config"] = f"{_MODULES}.plain.PlainLoginModule required {plain};"
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{_MODULES}.scram.ScramLoginModule required;"
    return settings


class Authority:
    """Signs certificates for an hour."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._sign(name, self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        self._sign(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, address)

    def _sign(
        self, file: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> None:
        now = datetime.datetime.now(datetime.UTC)
        hour = datetime.timedelta(hours=1)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - hour,
            not_valid_after=now + hour,
        ).add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        certificate = builder.sign(self._key, hashes.SHA256())
        (self._folder / f"{file}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self._folder / f"{file}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
