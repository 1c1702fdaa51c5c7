"""How a client connects to Kafka: TLS and SASL, in Kafka's own words. Knows nothing of what is then done there."""

import contextlib
import ipaddress
import ssl
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from tollgate.errors import ConfigError
from tollgate.secret import Secret

_Text = Annotated[str, Meta(min_length=1)]


class Contradiction(NamedTuple):
    """A key of `Security` that does not fit the others, and why."""

    key: str
    why: str


class Security(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `log.security` of gateway.yaml."""

    protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(
            description="What the brokers' listener speaks. `SSL`: TLS. `SASL_…`: a user name and a password, "
            "with TLS or without it."
        ),
    ] = "PLAINTEXT"
    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(description="With SASL: how the password is proved. `PLAIN` sends it; the others do not."),
    ] = "SCRAM-SHA-512"
    username: Annotated[_Text | None, Meta(description="With SASL: the user.")] = None
    password: Annotated[Secret | None, Meta(description="With SASL: the user's password, best as `${NAME}`.")] = None
    ca_file: Annotated[
        _Text | None,
        Meta(
            description="With TLS: a PEM file of the authorities that may vouch for the brokers. "
            "Default: those that the system trusts."
        ),
    ] = None
    cert_file: Annotated[
        _Text | None,
        Meta(
            description="With TLS: a PEM file of the client's certificate and its chain, where the brokers ask for one."
        ),
    ] = None
    key_file: Annotated[
        _Text | None, Meta(description="With TLS: a PEM file of that certificate's key, unencrypted.")
    ] = None

    @property
    def tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @property
    def who(self) -> str:
        """The client as it is known to the brokers."""
        if self.sasl:
            return f"user '{self.username}'"
        return "the holder of log.security.cert_file" if self.tls and self.cert_file else "an anonymous client"

    def contradiction(self) -> Contradiction | None:
        """The first key that another one contradicts. Files are not looked at."""
        for key in ("username", "password"):
            given = getattr(self, key) is not None
            if self.sasl and not given:
                return Contradiction(key, f"is needed: log.security.protocol is {self.protocol}")
            if given and not self.sasl:
                return Contradiction(
                    key, f"is used by SASL_PLAINTEXT and SASL_SSL only; log.security.protocol is {self.protocol}"
                )
        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(self, key) is not None and not self.tls:
                return Contradiction(key, f"is used by SSL and SASL_SSL only; log.security.protocol is {self.protocol}")
        if (self.cert_file is None) != (self.key_file is None):
            return Contradiction("key_file" if self.cert_file else "cert_file", "is needed: the two go together")
        return None

    def options(self) -> dict[str, Any]:
        """The arguments that aiokafka's clients take. Raises `ConfigError` when a file is not what it should be."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.sasl:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password.reveal() if self.password else None,
            }
        context = self.ssl_context()
        return options if context is None else {**options, "ssl_context": context}

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS that verifies the broker's certificate and name; None without TLS. Raises `ConfigError`."""
        if not self.tls:
            return None
        using = f"log.security.ca_file {self.ca_file}"
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file and self.key_file:
                using = f"log.security.cert_file {self.cert_file} with key_file {self.key_file}"
                # Without a password given OpenSSL would ask the terminal for that of an encrypted key.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except ssl.SSLError as error:
            raise ConfigError(f"{using}: {error.strerror}; it must be PEM, and a key without a password") from None
        except OSError as error:
            raise ConfigError(f"{using}: {error.strerror}") from None
        context.sslobject_class = _Conversation
        return context

    def exposure(self, brokers: str) -> str | None:
        """What others on the network could do; None with TLS, or where every broker is on this machine.

        `brokers` is "host:port,host:port".
        """
        hosts = [broker.rpartition(":")[0] for broker in brokers.split(",")]
        if self.tls or all(map(_is_loopback, hosts)):
            return None
        risk = "read and change everything on it"
        if self.sasl and self.mechanism == "PLAIN":
            risk = f"read the password and {risk}"
        return (
            f"the connection to Kafka at {brokers} is not encrypted: whoever is on the network between can {risk}; "
            f"set log.security.protocol to {'SASL_SSL' if self.sasl else 'SSL or SASL_SSL'}"
        )


class _Conversation(ssl.SSLObject):
    """TLS that says goodbye and does not wait for the answer.

    A broker reads nothing while it holds a fetch back for new records. Each consumer that was closed waited that long
    for its goodbye, and in uvloop sometimes for the 30 s of its time-out: a start took a minute and a half. Kafka's
    records have their lengths and checksums, so nobody can pass a cut connection off as the end of the data.
    """

    def unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            super().unwrap()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
