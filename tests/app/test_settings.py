"""Flags, environment, file and defaults, in this order."""

from pathlib import Path

import pytest

from tollgate.app.settings import resolve
from tollgate.environment import data_folder, gateway_url
from tollgate.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_with_nothing_said_there_are_defaults():
    settings = resolve({})

    assert (settings.host, settings.port, settings.data, settings.instance) == ("127.0.0.1", 8080, Path("data"), "main")


def test_the_file_beats_the_default_the_environment_the_file_and_a_flag_the_environment():
    Path("gateway.yaml").write_text("server: {port: 1111, host: filehost}")

    assert resolve({}).port == 1111
    assert resolve({"TOLLGATE_PORT": "2222"}).port == 2222
    assert resolve({"TOLLGATE_PORT": "2222"}, port=0).port == 0
    assert (resolve({}).host, resolve({}, host="flaghost").host) == ("filehost", "flaghost")


def test_the_file_is_the_one_that_is_named():
    Path("a.yaml").write_text("server: {port: 1}")
    Path("b.yaml").write_text("server: {port: 2}")

    assert resolve({"TOLLGATE_CONFIG": "a.yaml"}).port == 1
    assert resolve({"TOLLGATE_CONFIG": "a.yaml"}, config=Path("b.yaml")).port == 2


@pytest.mark.parametrize(
    ("env", "flag", "source"), [({"TOLLGATE_CONFIG": "x.yaml"}, None, "TOLLGATE_CONFIG"), ({}, "x.yaml", "--config")]
)
def test_a_named_file_must_exist(env, flag, source):
    with pytest.raises(ConfigError, match=rf"x\.yaml: no such file; {source} names it"):
        resolve(env, config=Path(flag) if flag else None)


def test_the_broker_flag_replaces_that_of_the_file_and_nothing_else():
    Path("gateway.yaml").write_text("log: {durability: process}")

    log = resolve({}, broker="kafka://k:9092").config.log

    assert (log.broker, log.durability) == ("kafka://k:9092", "process")
    with pytest.raises(UsageError, match="--broker must be 'embedded' or kafka://"):
        resolve({}, broker="k:9092")


def test_an_instance_has_the_hosts_name_on_kafka_where_peers_have_others(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node-7")

    assert resolve({}, broker="kafka://k:9092").instance == "node-7"
    assert resolve({"TOLLGATE_INSTANCE": "two"}, broker="kafka://k:9092").instance == "two"
    assert resolve({"TOLLGATE_INSTANCE": "two"}, instance="three").instance == "three"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "x" * 65])
def test_an_instance_is_named_so_that_it_can_be_a_folder(name):
    with pytest.raises(ConfigError, match="cannot name an instance"):
        resolve({}, instance=name)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "8080 ", "８０８０"])
def test_a_port_is_a_port(port):
    with pytest.raises(ConfigError, match="TOLLGATE_PORT must be a port"):
        resolve({"TOLLGATE_PORT": port})


def test_an_empty_variable_is_as_good_as_none():
    empty = {"TOLLGATE_PORT": "", "TOLLGATE_CONFIG": "", "TOLLGATE_DATA": "", "TOLLGATE_INSTANCE": ""}

    assert resolve(empty) == resolve({})


def test_commands_find_the_gateway_by_url_or_port():
    assert gateway_url({}) == "http://127.0.0.1:8080"
    assert gateway_url({"TOLLGATE_PORT": "9"}) == "http://127.0.0.1:9"
    assert (
        gateway_url({"TOLLGATE_URL": "https://gate.example/base/", "TOLLGATE_PORT": "9"}) == "https://gate.example/base"
    )
    for url in ("gate:80", "ftp://gate", "http://me:secret@gate"):
        with pytest.raises(ConfigError, match="TOLLGATE_URL must be") as caught:
            gateway_url({"TOLLGATE_URL": url})
        assert url not in str(caught.value)


def test_the_data_folder_is_named_by_the_environment():
    assert data_folder({"TOLLGATE_DATA": "/var/lib/tollgate"}) == Path("/var/lib/tollgate")
