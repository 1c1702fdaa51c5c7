"""A real Kafka broker for tests and for trying things out: one KRaft node on the loopback interface.

    python tests/kafka_broker.py --port 9092        runs until Ctrl-C

Maven fetches Apache Kafka once (45 MB) into $TOLLGATE_KAFKA_CACHE, by default ~/.cache/tollgate-kafka; every start
begins with an empty log. Standard library only. Needs Java 17 or newer, and Maven for the first time.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"
HOST = "127.0.0.1"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
FIRST_PORT, PORTS = 10_000, 20_000  # outgoing connections begin at 32768 on Linux, at 49152 elsewhere
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
# Tests start many brokers that live for seconds. One that is measured runs as Kafka's own start script would have it.
QUICK_START = ("-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
LONG_RUN = ("-Xmx1G", "-Xms1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExplicitGCInvokesConcurrent")
HOW_TO_GET = "Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"

# On Linux a process that is run through this ends even when the tests are killed: prctl(PR_SET_PDEATHSIG, SIGKILL).
_PRCTL = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
DIES_WITH_PARENT = [sys.executable, "-c", _PRCTL] if sys.platform == "linux" else []
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version></dependency>
  </dependencies>
</project>
"""
_LOG4J = """<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss,SSS} %p %c{1} %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class KafkaUnavailable(Exception):
    """Java, Maven or the download is missing; the text says how to get it."""


class KafkaBroker:
    """A broker with a log of its own, from `start` to `stop`."""

    def __init__(
        self,
        *,
        port: int = 0,
        listeners: Mapping[str, int] | None = None,
        advertised: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
        users: Mapping[str, str] | None = None,
        java_options: Sequence[str] = QUICK_START,
    ) -> None:
        """Beside the plain listener at `port` there are `listeners`, each named for its security protocol or plain.

        Clients of a listener are told to come to the port that is `advertised` for it, if there is one: a proxy's.
        `settings` are in addition to those of every broker here; `users` and their passwords are for SCRAM.
        `java_options` make it start quickly, unless `LONG_RUN` is asked for.
        """
        self.port = port or free_port()
        self.address = f"{HOST}:{self.port}"
        self._listeners = {"PLAINTEXT": self.port, **(listeners or {})}
        self._advertised = {**self._listeners, **(advertised or {})}
        self._settings = settings or {}
        self._users = users or {}
        self._java_options = java_options
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._command: list[str | Path] = []

    def start(self) -> "KafkaBroker":
        """Return once the broker answers; after `kill` with the log that it had.

        Raises `KafkaUnavailable` where it cannot be had.
        """
        self.launch()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if not self.runs or time.monotonic() > deadline:
                said = (self._folder / "broker.log").read_text(errors="replace")[-3000:]
                self.stop()
                raise RuntimeError(f"Kafka did not start:\n{said}")
            time.sleep(0.05)
        return self

    def _formatted(self) -> list[str | Path]:
        """Make an empty log in a new folder; return the command that runs the broker on it."""
        java, jars = _java(), _jars()
        self._folder = Path(tempfile.mkdtemp(prefix="tollgate-kafka-"))
        settings = self._folder / "server.properties"
        values = _settings(self._folder / "data", self._listeners, self._advertised, free_port()) | dict(self._settings)
        settings.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        (self._folder / "log4j2.xml").write_text(_LOG4J)
        command: list[str | Path] = [java, *self._java_options]
        command += ["-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}"]
        format_log = [*command, "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c", settings]
        for user, password in self._users.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                format_log += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
        done = subprocess.run(format_log, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        if done.returncode != 0:
            raise KafkaUnavailable(f"{java} cannot run Kafka {KAFKA_VERSION}: {done.stderr.strip()[:300]}")
        return [*DIES_WITH_PARENT, *command, "kafka.Kafka", settings]

    def launch(self) -> None:
        """Run on the log that is there, or on a new one. Returns at once; see `answers`."""
        self._command = self._command or self._formatted()
        with (self._folder / "broker.log").open("ab") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output, start_new_session=True)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        return _answers(self.port)

    def kill(self) -> None:
        """End the broker at once (SIGKILL), and keep its log for the next `start`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End the broker and remove its log."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self, frozen: bool) -> None:
        """Stop the broker's time, or let it go on: connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)


def _settings(
    data: Path, listeners: Mapping[str, int], advertised: Mapping[str, int], controller_port: int
) -> dict[str, object]:
    reachable = ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())
    protocols = (f"{name}:{name if name in PROTOCOLS else 'PLAINTEXT'}" for name in listeners)
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"{reachable},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in advertised.items()),
        "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *protocols]),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        # One node holds the only copy of everything; few internal partitions make start and stop quick.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
    }


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise KafkaUnavailable("there is no Java")
    return java


def _jars() -> Path:
    """The folder with Kafka's jars, fetched if it is not there yet."""
    cache = Path(os.environ.get("TOLLGATE_KAFKA_CACHE") or Path.home() / ".cache" / "tollgate-kafka")
    jars = cache / KAFKA_VERSION
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("there is no Maven to fetch it with")
    cache.mkdir(parents=True, exist_ok=True)
    # Fetched beside its place and then renamed, so that two at once do not disturb each other.
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(_POM)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        options = ["-DincludeScope=runtime", f"-DoutputDirectory={folder / 'jars'}"]
        fetched = subprocess.run(
            [maven, "-q", "-B", "-f", folder / "pom.xml", goal, *options], capture_output=True, text=True
        )
        if fetched.returncode != 0:
            raise KafkaUnavailable(f"Maven could not fetch Kafka {KAFKA_VERSION}: {fetched.stdout.strip()[:500]}")
        try:
            (folder / "jars").rename(jars)
        except OSError:
            if not jars.is_dir():
                raise
    return jars


def free_port() -> int:
    """A port that nobody uses now, and no system gives to an outgoing connection: it can be used again and again."""
    while True:
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


def _answers(port: int) -> bool:
    """Whether a broker answers an ApiVersions request (key 18, version 0) without an error."""
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.makefile("rb").read(10)
    except OSError:
        return False
    return len(answer) == 10 and struct.unpack(">iih", answer)[2] == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run one Kafka broker until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9092)
    broker = KafkaBroker(port=parser.parse_args().port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(broker.start().address, flush=True)
        signal.pause()
    except KafkaUnavailable as error:
        sys.exit(f"{error}; it needs {HOW_TO_GET}")
    except KeyboardInterrupt:
        broker.stop()
