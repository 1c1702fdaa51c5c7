"""`tollgate topics`: make a Kafka cluster match topics.yaml, or say where it does not."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tollgate.app.cli_config import ConfigFile
from tollgate.app.cli_output import print_json, print_table, quiet
from tollgate.errors import UsageError

if TYPE_CHECKING:
    from tollgate.log.kafka_security import Security
    from tollgate.topics import Difference, Topics

app = typer.Typer(help="The topics of a Kafka cluster.", no_args_is_help=True)

Broker = Annotated[
    str | None, typer.Option(help="kafka://host:port[,host:port...]. Default: 'log.broker' of gateway.yaml.")
]
TopicsFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A topics.yaml. Default: the one that tollgate brings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def plan(broker: Broker = None, config: ConfigFile = None, file: TopicsFile = None, json: Json = False) -> int:
    """Print what 'apply' would do. Changes nothing."""
    _print(_differences(broker, config, file), json=json)
    return 0


@app.command()
def check(broker: Broker = None, config: ConfigFile = None, file: TopicsFile = None, json: Json = False) -> int:
    """Say where the cluster differs from the declarations; exit code 1 if it does."""
    differences = _differences(broker, config, file)
    _print(differences, json=json)
    return 1 if differences else 0


@app.command()
def apply(broker: Broker = None, config: ConfigFile = None, file: TopicsFile = None, json: Json = False) -> int:
    """Create what is missing and set what is declared; exit code 1 if something cannot be set right.

    What the declarations do not name is left as it is.
    """
    from tollgate.log.kafka_topics import apply_kafka

    brokers, security = _cluster(broker, config)
    differences = asyncio.run(apply_kafka(brokers, _topics(file), security))
    _print(differences, json=json)
    return 0 if all(difference.applicable for difference in differences) else 1


def _differences(broker: str | None, config: Path | None, file: Path | None) -> "list[Difference]":
    from tollgate.log.kafka_topics import check_kafka

    brokers, security = _cluster(broker, config)
    return asyncio.run(check_kafka(brokers, _topics(file), security))


def _cluster(broker: str | None, config: Path | None) -> "tuple[str, Security]":
    from tollgate.app.settings import resolve

    quiet("aiokafka")
    log = resolve(os.environ, config=config, broker=broker).config.log
    if log.embedded:
        raise UsageError("the embedded log makes its own topics; name a cluster with --broker kafka://host:port")
    return ",".join(log.bootstrap_servers), log.security


def _topics(file: Path | None) -> "Topics":
    from tollgate.topics import load_topics

    return load_topics(file)


def _print(differences: "Sequence[Difference]", *, json: bool) -> None:
    if json:
        import msgspec

        print_json([msgspec.structs.asdict(each) | {"applicable": each.applicable} for each in differences])
    elif not differences:
        print("Every topic is as declared.")
    else:
        print_table(
            ("topic", "action", "difference"), [(each.topic, _action(each), _text(each)) for each in differences]
        )


def _action(difference: "Difference") -> str:
    return {"missing": "create", "config": "set", "partitions": "none is possible"}[difference.what]


def _text(difference: "Difference") -> str:
    return str(difference).removeprefix(f"{difference.topic}: ")
