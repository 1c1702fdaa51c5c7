"""A gateway on a Kafka that asks who it is and allows exactly what the documentation says."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.kafka_broker import KafkaUnavailable
from tests.log.support import read
from tests.secure_kafka import ALTER_CONFIGS, CREATE, DENY, GROUP, MECHANISMS, TOPIC, SecureKafka, password_of
from tests.test_one_request import QUESTION, post
from tollgate.app.access import access_of
from tollgate.app.gateway import Gateway, Role, open_gateway
from tollgate.app.open_log import open_log, open_log_to_read
from tollgate.config import Config, load_config
from tollgate.errors import AppendUnknown, ConfigError, LogUnavailable
from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_access import OPERATIONS, Access
from tollgate.log.kafka_security import Security
from tollgate.log.kafka_topics import apply_kafka, check_kafka
from tollgate.secret import Secrets, check_strength
from tollgate.sinks.reconcile import reconcile
from tollgate.topics import Topic, Topics, load_topics

pytestmark = pytest.mark.kafka

ROLES: tuple[Role, ...] = ("ingress", "worker", "sink")
USERS = ("operator", "all", *ROLES, "reader", "almost", "newcomer")
ANY = Topics(topics={"any": Topic(name="any", partitions=1)})

ADMIN_KEY, SECRET = "kZ3vQ9xL2mN8pR5tW7yB4cD6", "Hq8wE3rT6yU1iO9pA4sD7fG2"
SECRETS = Secrets(admin_key=check_strength("admin key", ADMIN_KEY), secret=check_strength("secret", SECRET))

TOLLGATE = (sys.executable, "-c", "import sys; from tollgate.app.cli import main; sys.exit(main())")
WAIT_S = 60


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """The broker with all topics, made by an operator, and each user with exactly what its role needs."""
    broker = SecureKafka(tmp_path_factory.mktemp("certificates"), USERS)
    try:
        broker.start()
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    asyncio.run(prepare(broker))
    yield broker
    broker.stop()


async def prepare(broker: SecureKafka) -> None:
    everything = [*(topic.name for topic in load_topics()), "any"]
    await apply_kafka(broker.plain, ANY)
    for name in everything:
        for operation in (CREATE, ALTER_CONFIGS, OPERATIONS["Describe"], OPERATIONS["DescribeConfigs"]):
            await broker.grant_raw("operator", TOPIC, name, operation)
    await apply_kafka(broker.addresses["SASL_SSL"], load_topics(), broker.user("operator"))
    described = Access(topics={topic.name: ("Describe",) for topic in load_topics()})
    for role in ("all", *ROLES, "reader"):
        await broker.grant(role, described)
        await broker.grant(role, access_of(role))
    for user in ("worker", "CN=client"):
        await broker.grant(user, Access(topics={"any": ("Read", "Write")}))


def config_of(broker: SecureKafka, user: str) -> Config:
    config = load_config(None, {})
    security, address = broker.user(user), broker.addresses["SASL_SSL"]
    return replace(config, log=replace(config.log, broker=f"kafka://{address}", security=security))


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_user_is_let_in_by_every_mechanism(broker: SecureKafka, protocol: str, mechanism: str) -> None:
    security = broker.user("worker", protocol=protocol, mechanism=mechanism)

    assert await written_and_read(broker.addresses[protocol], security) == protocol.encode()


async def test_a_client_is_let_in_by_its_certificate(broker: SecureKafka) -> None:
    security = replace(anonymous(broker), cert_file=broker.file("client.pem"), key_file=broker.file("client.key"))

    assert await written_and_read(broker.addresses["SSL"], security) == b"SSL"


def anonymous(broker: SecureKafka) -> Security:
    return Security(protocol="SSL", ca_file=broker.file("authority.pem"))


async def written_and_read(address: str, security: Security) -> bytes | None:
    log = await KafkaLog.connect(address, ANY, client_id="test", security=security)
    try:
        position = await log.append("any", b"k", security.protocol.encode())
        (record,) = await read(log, "any", start=position.offset)
        return record.value
    finally:
        await log.close()


def test_a_gateway_with_exactly_its_rights_serves_a_request(broker: SecureKafka, tmp_path: Path) -> None:
    """As an operator starts it: the file, the command, the password from the environment."""
    with running_gateway(broker, tmp_path) as gateway:
        assert gateway.stdout is not None
        url = re.search(r"ready at (\S+)", gateway.stdout.readline())
        assert url is not None
        request = urllib.request.Request(
            f"{url[1]}/v1/chat/completions",
            QUESTION,
            {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            assert json.load(answer)["object"] == "chat.completion"
        gateway.send_signal(signal.SIGTERM)
        said, complained = gateway.communicate(timeout=WAIT_S)
        assert gateway.returncode == 0
        assert "Traceback" not in complained
        assert password_of("all") not in said + complained


def test_a_wrong_password_is_one_line_that_says_what_to_check(broker: SecureKafka, tmp_path: Path) -> None:
    with running_gateway(broker, tmp_path, password="wrong-and-secret") as gateway:
        said, complained = gateway.communicate(timeout=WAIT_S)

    assert gateway.returncode == 3
    assert complained == (
        f"tollgate: Kafka at {broker.addresses['SASL_SSL']} does not accept user 'all' by SCRAM-SHA-512; check "
        "log.security.username, password and mechanism\n"
    )
    assert "wrong-and-secret" not in said


@contextmanager
def running_gateway(
    broker: SecureKafka, folder: Path, *, password: str = password_of("all")
) -> "Iterator[subprocess.Popen[str]]":
    (folder / "gateway.yaml").write_text(
        f"""
log:
  broker: kafka://{broker.addresses["SASL_SSL"]}
  security:
    protocol: SASL_SSL
    username: all
    password: ${{KAFKA_PASSWORD}}
    ca_file: {broker.file("authority.pem")}
"""
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    environment = ours | {
        "TOLLGATE_ADMIN_KEY": ADMIN_KEY,
        "TOLLGATE_SECRET": SECRET,
        "TOLLGATE_DATA": str(folder / "data"),
        "KAFKA_PASSWORD": password,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [*TOLLGATE, "serve", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True) as gateway:
        try:
            yield gateway
        finally:
            gateway.kill()


async def test_roles_with_exactly_their_rights_serve_a_request_and_keep_the_books(
    broker: SecureKafka, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        for role in reversed(ROLES):
            gateway = await stack.enter_async_context(role_started(broker, role, tmp_path))
        status, _, _ = await post(gateway.application, ADMIN_KEY, QUESTION)
        assert status == 200
        status, _, _ = await post(gateway.application, "a key that nobody has", QUESTION)
        assert status == 401

    log = await open_log_to_read(config_of(broker, "reader"), tmp_path)
    try:
        report = await reconcile(log, tmp_path)
        assert report.rows >= 1 and not report.differences
        with pytest.raises(LogUnavailable, match="opened to be read"):
            await log.append("audit", b"k", b"v")
    finally:
        await log.close()


@asynccontextmanager
async def role_started(broker: SecureKafka, role: Role, data: Path) -> AsyncIterator[Gateway]:
    config = config_of(broker, role)
    async with (
        open_gateway(config, role=role, data=data, instance=role, secrets=SECRETS, fatal=pytest.fail) as gateway,
        gateway.started(),
    ):
        yield gateway


async def test_rights_that_are_missing_are_told_with_topic_and_operation(broker: SecureKafka, tmp_path: Path) -> None:
    granted = access_of("worker")
    topics = {name: operations for name, operations in granted.topics.items() if name not in ("costs", "requests")}
    await broker.grant("almost", Access(topics=topics | {"requests": ("Describe",)}))
    await broker.grant_raw("almost", GROUP, "tollgate", OPERATIONS["Describe"])

    log = await open_log(config_of(broker, "almost"), tmp_path, role="worker", client_id="test")
    with pytest.raises(ConfigError, match="does not allow user 'almost' to do what it must") as caught:
        await log.until_open()

    _, _, missing = str(caught.value).partition("must: ")
    assert missing.partition(". ")[0] == (
        "Read on topic requests; Write on topics costs, requests; Read on group tollgate"
    )


async def test_a_right_that_is_taken_away_fails_the_log_with_the_topics_name(broker: SecureKafka) -> None:
    await broker.grant("almost", Access(topics={"any": ("Write",)}))
    log = await KafkaLog.connect(
        broker.addresses["SASL_SSL"], ANY, client_id="test", security=broker.user("almost"), append_timeout_s=WAIT_S
    )
    try:
        await log.append("any", b"k", b"v")
        await broker.grant_raw("almost", TOPIC, "any", OPERATIONS["Write"], permission=DENY)
        with pytest.raises(AppendUnknown, match=r"TopicAuthorizationFailedError\('any'\)"):
            async with asyncio.timeout(WAIT_S):
                while True:
                    await log.append("any", b"k", b"v")
        assert log.failed.done()
    finally:
        await log.close()


async def test_a_topic_that_may_not_be_seen_is_not_called_missing(broker: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"'newcomer' .* Describe on topic any; DescribeConfigs on topic any"):
        await check_kafka(broker.addresses["SASL_SSL"], ANY, broker.user("newcomer"))


async def test_rights_that_apply_lacks_are_named(broker: SecureKafka) -> None:
    address, newcomer = broker.addresses["SASL_SSL"], broker.user("newcomer")
    differing = Topics(topics={"any": Topic(name="any", partitions=1, config={"segment.ms": "77000"})})
    absent = Topics(topics={"absent": Topic(name="absent", partitions=1)})
    for name in ("any", "absent"):
        await broker.grant("newcomer", Access(topics={name: ("Describe", "DescribeConfigs")}))

    assert await check_kafka(address, ANY, newcomer) == []
    with pytest.raises(ConfigError, match="would not configure 'any': grant this user AlterConfigs"):
        await apply_kafka(address, differing, newcomer)
    with pytest.raises(ConfigError, match="would not create 'absent': grant this user Create"):
        await apply_kafka(address, absent, newcomer)


async def test_a_broker_is_not_talked_to_without_the_right_authority_or_name(broker: SecureKafka) -> None:
    address = broker.addresses["SASL_SSL"]
    stranger = replace(broker.user("worker"), ca_file=broker.file("stranger.pem"))
    with pytest.raises(
        ConfigError, match=r"certificate of Kafka at .* is not accepted: .*check log\.security\.ca_file"
    ):
        await KafkaLog.connect(address, ANY, client_id="test", security=stranger)
    with pytest.raises(ConfigError, match=r"Hostname mismatch.*the broker's name in log\.broker"):
        await KafkaLog.connect(
            address.replace("127.0.0.1", "localhost"), ANY, client_id="test", security=broker.user("worker")
        )


async def test_a_listener_that_wants_something_else_is_an_error_that_names_the_setting(broker: SecureKafka) -> None:
    worker = broker.user("worker")
    in_the_clear = replace(worker, protocol="SASL_PLAINTEXT", ca_file=None)
    addresses = {**broker.addresses, "PLAINTEXT": broker.plain}
    for listener, security, error, setting in (
        ("PLAINTEXT", in_the_clear, ConfigError, "log.security.protocol and the port"),
        ("PLAINTEXT", worker, LogUnavailable, "log.security.protocol, SASL_SSL"),
        ("SASL_PLAINTEXT", Security(), LogUnavailable, "log.security.protocol, PLAINTEXT"),
        ("SASL_SSL", in_the_clear, LogUnavailable, "log.security.protocol, SASL_PLAINTEXT"),
        ("SASL_SSL", anonymous(broker), LogUnavailable, "log.security.protocol, SSL"),
        ("SSL", anonymous(broker), ConfigError, "log.security.cert_file"),
    ):
        with pytest.raises(error, match=f"127.0.0.1.*check .*{re.escape(setting)}"):
            await KafkaLog.connect(addresses[listener], ANY, client_id="test", security=security)
