"""What stands in docker-compose.yml and Dockerfile holds together: nothing here has an engine to try it with."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tollgate.app import cli
from tollgate.environment import VARIABLES
from tollgate.topics import load_topics

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAYS = {name: service for name, service in SERVICES.items() if service.get("image") == "tollgate"}
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(None, 1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]


def parse(words: list[str]) -> dict[str, Any]:
    """What the command line makes of these words; raises what it would say of wrong ones."""
    command: Any = cli._command()
    context: Any = None
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    context = command.make_context(command.name, list(words), parent=context)
    return context.params


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_service_runs_a_command_that_there_is(name: str):
    assert parse(GATEWAYS[name]["command"])["broker"] == "kafka://kafka:9092"


def test_a_wrong_word_in_a_command_would_be_found():
    with pytest.raises(typer.TyperException):
        parse(["serve", "--roll", "ingress"])


def test_every_role_runs_and_hears_its_probes_from_outside():
    served = {name: parse(service["command"]) for name, service in GATEWAYS.items() if "serve" in service["command"]}
    assert {made["role"] for made in served.values()} == {"ingress", "worker", "sink"}
    assert {made["host"] for made in served.values()} == {"0.0.0.0"}


def test_every_process_has_a_name_of_its_own_and_both_secrets():
    environments = [service["environment"] for service in GATEWAYS.values() if "serve" in service["command"]]
    names = [environment["TOLLGATE_INSTANCE"] for environment in environments]
    assert len(set(names)) == len(names)
    for environment in environments:
        assert {"TOLLGATE_ADMIN_KEY", "TOLLGATE_SECRET"} < environment.keys() <= VARIABLES.keys()
        assert environment["TOLLGATE_SECRET"].startswith("${TOLLGATE_SECRET:?")


def test_what_a_service_refers_to_is_there():
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", ())} <= COMPOSE["volumes"].keys()
        assert {config["source"] for config in service.get("configs", ())} <= COMPOSE["configs"].keys()
    balanced = re.findall(r"server (\S+) (\S+):(\d+) check", COMPOSE["configs"]["balancer"]["content"])
    assert {(server, host) for server, host, _ in balanced} == {(name, name) for name in SERVICES if "ingress" in name}
    assert {port for *_, port in balanced} == {"8080"}


def test_the_topics_fit_the_number_of_brokers():
    assert load_topics().replication_factor == 1


def test_the_image_is_made_of_files_that_are_there():
    ignored = (ROOT / ".dockerignore").read_text().split()
    for instruction, words in INSTRUCTIONS:
        if instruction == "COPY" and not words.startswith("--from"):
            for source in words.split()[:-1]:
                assert (ROOT / source).exists() and source not in ignored
    packaged = (ROOT / "pyproject.toml").read_text()
    assert not [name for name in ignored if re.search(rf'"{re.escape(name)}"\s*=', packaged)]


def test_the_image_serves_where_it_is_probed():
    said = dict(INSTRUCTIONS)
    environment = dict(pair.split("=", 1) for _, words in INSTRUCTIONS for pair in shlex.split(words) if "=" in pair)
    assert said["EXPOSE"] == environment["TOLLGATE_PORT"] and said["VOLUME"] == environment["TOLLGATE_DATA"]
    assert parse(ast.literal_eval(said["CMD"]))["host"] == "0.0.0.0"
    (_, probe) = said["HEALTHCHECK"].split("CMD", 1)
    compile(ast.literal_eval(probe.strip())[-1], "HEALTHCHECK", "exec")
    assert "/readyz" in probe
