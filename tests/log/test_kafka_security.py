"""TLS and SASL towards Kafka: what is accepted, what it becomes, and what is said where it cannot work."""

import asyncio
import socket
import ssl
import threading

import pytest
import uvloop
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.secure_kafka import Authority
from tollgate.errors import ConfigError, LogUnavailable
from tollgate.log import kafka_access
from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_access import UNTOLD, Access, check_access, explained, not_in
from tollgate.log.kafka_security import Security
from tollgate.secret import Secret
from tollgate.topics import Topics

HANG_UP_S = 10.0  # asyncio and uvloop would give up after 30

PASSWORD = Secret("hush-hush")
USER = Security(protocol="SASL_PLAINTEXT", username="u", password=PASSWORD)


@pytest.fixture
def pem(tmp_path):
    """Where an authority and a client of it have their certificates and keys, by file name."""
    Authority("authority", tmp_path).issue("client")
    return lambda name: str(tmp_path / name)


def test_security_becomes_the_clients_options(pem):
    security = Security(protocol="SASL_SSL", username="u", password=PASSWORD, ca_file=pem("authority.pem"))

    options = security.options()

    context = options.pop("ssl_context")
    assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
    assert [dict(part[0] for part in each["subject"])["commonName"] for each in context.get_ca_certs()] == ["authority"]
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "hush-hush",
    }
    assert Security().options() == {"security_protocol": "PLAINTEXT"}
    assert "hush" not in repr(security)


def test_without_a_file_the_authorities_of_the_system_are_trusted():
    context = Security(protocol="SSL").ssl_context()

    assert context is not None and context.verify_mode == ssl.CERT_REQUIRED


def test_without_tls_there_is_no_context_even_with_a_user():
    assert USER.ssl_context() is None


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_ends_though_the_broker_does_not_answer_the_goodbye(pem, new_loop):
    """A broker that holds a fetch back reads nothing meanwhile."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(pem("client.pem"), pem("client.key"))

    async def hang_up() -> None:
        silent = asyncio.get_running_loop().create_future()

        def hear_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            transport = writer.transport
            transport.pause_reading()
            silent.set_result(transport)

        server = await asyncio.start_server(hear_nothing, "127.0.0.1", 0, ssl=server_context)
        context = Security(protocol="SSL", ca_file=pem("authority.pem")).ssl_context()
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
        transport = await silent
        try:
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), HANG_UP_S)
        finally:
            transport.abort()
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(hang_up())


@pytest.mark.parametrize(
    ("security", "key", "why"),
    [
        (Security(protocol="SASL_SSL", password=PASSWORD), "username", "is needed: log.security.protocol is SASL_SSL"),
        (
            Security(protocol="SASL_PLAINTEXT", username="u"),
            "password",
            "is needed: log.security.protocol is SASL_PLAINTEXT",
        ),
        (Security(username="u", password=PASSWORD), "username", "is used by SASL_PLAINTEXT and SASL_SSL only"),
        (Security(protocol="SSL", password=PASSWORD), "password", "log.security.protocol is SSL"),
        (Security(ca_file="ca.pem"), "ca_file", "is used by SSL and SASL_SSL only"),
        (Security(protocol="SSL", cert_file="c.pem"), "key_file", "the two go together"),
        (Security(protocol="SSL", key_file="k.pem"), "cert_file", "the two go together"),
    ],
)
def test_keys_that_contradict_each_other_are_named(security, key, why):
    contradiction = security.contradiction()

    assert contradiction is not None and contradiction.key == key
    assert why in contradiction.why


@pytest.mark.parametrize("security", [Security(), USER, Security(protocol="SSL", cert_file="c", key_file="k")])
def test_what_fits_together_is_no_contradiction(security):
    assert security.contradiction() is None


def test_a_file_that_cannot_be_used_is_an_error_that_names_key_and_file(pem, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear operator,")
    reasons = {"missing.pem": "No such file", "letter.txt": "no certificate or crl found", "": "directory"}
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=rf"log\.security\.ca_file {pem(name)}: .*{reason}"):
            Security(protocol="SSL", ca_file=pem(name)).ssl_context()
    with pytest.raises(ConfigError, match=r"cert_file \S+client\.pem with key_file \S+authority\.key: .*MISMATCH"):
        Security(protocol="SSL", cert_file=pem("client.pem"), key_file=pem("authority.key")).ssl_context()


def test_an_encrypted_key_is_an_error_and_no_question_at_the_terminal(pem, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.key").write_bytes(key)

    with pytest.raises(ConfigError, match="a key without a password"):
        Security(protocol="SSL", cert_file=pem("client.pem"), key_file=pem("locked.key")).ssl_context()


@pytest.mark.parametrize("brokers", ["127.0.0.1:9092", "localhost:9092,[::1]:9092", "127.8.8.8:1"])
def test_what_stays_on_the_machine_is_not_exposed(brokers):
    assert Security().exposure(brokers) is None


@pytest.mark.parametrize("security", [Security(protocol="SSL"), Security(protocol="SASL_SSL")])
def test_what_is_encrypted_is_not_exposed(security):
    assert security.exposure("kafka:9092") is None


def test_what_leaves_the_machine_in_the_clear_is_exposed_and_with_plain_the_password_too():
    plain = Security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", username="u", password=PASSWORD)

    assert "read and change everything" in (Security().exposure("localhost:9092,kafka:9092") or "")
    assert "password" not in (USER.exposure("10.0.0.1:9092") or "password")
    assert "read the password" in (plain.exposure("10.0.0.1:9092") or "")
    assert "set log.security.protocol to SASL_SSL" in (plain.exposure("10.0.0.1:9092") or "")


async def test_the_exposure_is_one_warning(caplog, monkeypatch):
    monkeypatch.setattr(kafka_access, "TIMEOUT_S", 0.01)

    with pytest.raises(LogUnavailable):
        await KafkaLog.connect("192.0.2.1:9092", Topics(topics={}), client_id="test")  # an address that nobody has

    (warning,) = caplog.records
    assert (warning.name, warning.levelname) == ("tollgate", "WARNING")
    assert "192.0.2.1:9092 is not encrypted" in warning.message


def test_an_error_says_what_to_check_and_not_the_password():
    closed = KafkaConnectionError("closed")
    closed.__cause__ = ssl.SSLError(1, "[SSL: BAD] alert")
    distrust = ssl.SSLCertVerificationError(1, "no")
    distrust.verify_message = "self-signed certificate"
    errors = {
        SaslAuthenticationFailed("no"): "user 'u' by SCRAM-SHA-512; check log.security.username, password",
        UnsupportedSaslMechanismError("no"): "does not take SCRAM-SHA-512; check log.security.mechanism",
        IllegalSaslStateError("no"): "asks for no user there; check log.security.protocol",
        distrust: "is not accepted: self-signed certificate; check log.security.ca_file",
        closed: "check log.security.cert_file and key_file",
    }
    for error, text in errors.items():
        told = explained(error, "b:9093", USER)
        assert isinstance(told, ConfigError)
        assert "b:9093" in str(told) and text in str(told)
        assert "hush" not in str(told)


def test_a_broker_that_is_away_may_come_back():
    for error in (
        ConnectionRefusedError(111, "refused"),
        TimeoutError(),
        ConnectionResetError(),
        KafkaConnectionError(),
    ):
        assert isinstance(explained(error, "b:9092", Security()), LogUnavailable)
    assert "PLAINTEXT, is what it speaks" in str(explained(ConnectionResetError(), "b:9092", Security()))


async def test_a_listener_of_something_else_is_an_error_that_names_the_protocol():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(LogUnavailable, match=r"closed the connection; check that log\.security\.protocol"):
            await check_access(f"127.0.0.1:{listener.getsockname()[1]}", Security(), Access(), client_id="test")
        thread.join()


def test_a_set_of_operations_is_read_by_kafkas_numbers():
    assert not_in(1 << 3 | 1 << 8, ("Read", "Describe")) == []
    assert not_in(1 << 3 | 1 << 8, ("Read", "Write", "DescribeConfigs")) == ["Write", "DescribeConfigs"]
    assert not_in(0, ("Write",)) == ["Write"]


def test_a_broker_that_does_not_tell_is_not_taken_to_refuse():
    assert not_in(UNTOLD, ("Read", "Write")) == []
