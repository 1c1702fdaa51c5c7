"""The command `tollgate`.

Exit codes: 0 ok, 1 differences were found, 2 wrong usage, 3 wrong environment or configuration, 75 start me again.
An error that a person can mend is one line on stderr. What is heavy is imported inside the commands: `--help` and
`--version` load none of it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import tollgate
from tollgate.app import cli_books, cli_config, cli_credentials, cli_keys, cli_log, cli_requests, cli_topics
from tollgate.errors import AppendUnknown, ConfigError, TollgateError, UsageError, why

OK, DIFFERENCES, USAGE, ENVIRONMENT, RESTART, INTERRUPTED = 0, 1, 2, 3, 75, 130

app = typer.Typer(
    help="The self-hosted AI gateway whose books balance.",
    epilog="Exit codes: 0 ok, 1 differences found, 2 usage, 3 environment or configuration, 75 start me again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so prompts and keys
)
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_credentials.app, name="credentials")
app.add_typer(cli_requests.app, name="requests")
app.add_typer(cli_topics.app, name="topics")
app.add_typer(cli_config.app, name="config")
app.add_typer(cli_log.app, name="log")

ConfigFile = cli_config.ConfigFile


def main() -> int:
    """Run one command and return its exit code."""
    try:
        code = _command()(prog_name="tollgate", standalone_mode=False) or OK
        sys.stdout.flush()
        return code
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer makes 1 of it, which here means differences
            return OK
        raise
    except BrokenPipeError:
        # The reader has seen enough (`tollgate ... | head`); the interpreter's last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except typer.TyperException as error:
        message = error.format_message().replace("Value error, ", "")  # pydantic's words before Typer's own
        return _complain(message, USAGE) if message else USAGE  # without one, the help was shown instead
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except UsageError as error:
        return _complain(str(error), USAGE)
    except AppendUnknown as error:
        return _complain(str(error), RESTART)
    except ConfigError as error:
        return _complain_of_each(error.problems, ENVIRONMENT)
    except TollgateError as error:
        return _complain(str(error), ENVIRONMENT)


def _command() -> Any:
    """The whole command line. Typer writes `<bool>` behind a flag in the help, as if it took one: that goes."""
    command = typer.main.get_command(app)

    def take_from(command: Any) -> None:
        for option in command.get_params(typer.Context(command)):
            if getattr(option, "is_flag", False):
                option.metavar = ""
        for inner in getattr(command, "commands", {}).values():
            take_from(inner)

    take_from(command)
    return command


def _complain(message: str, code: int) -> int:
    print(f"tollgate: {message}", file=sys.stderr)
    return code


def _complain_of_each(problems: tuple[str, ...], code: int) -> int:
    for problem in problems:
        _complain(problem, code)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tollgate {tollgate.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    config: ConfigFile = None,
    role: Annotated[
        Literal["all", "ingress", "worker", "sink"],
        typer.Option(help="What this process does; one role of several needs Kafka."),
    ] = "all",
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="'embedded' or kafka://host:port[,host:port...].")] = None,
    instance: Annotated[str | None, typer.Option(help="The name of this process among its peers.")] = None,
) -> int:
    """Run the gateway in the foreground."""
    from tollgate.app.listen import bind
    from tollgate.app.reload import Reading, Source
    from tollgate.app.settings import check_role, resolve
    from tollgate.environment import PRICING_FILE, config_file
    from tollgate.secret import first_run_secrets

    def read() -> Reading:
        from tollgate.app.gateway import load_prices

        return Reading(resolve(os.environ, config=config, broker=broker).config, load_prices())

    source = Source(lambda: (config_file(os.environ, config), Path(PRICING_FILE)), read)
    seen = source.seen()  # before it is read: a change in between is found
    settings = resolve(os.environ, config=config, host=host, port=port, broker=broker, instance=instance)
    check_role(role, settings.config)
    with bind(settings.host, settings.port) as sockets:
        secrets = first_run_secrets(settings.data, os.environ, embedded=settings.config.log.embedded)

        from tollgate.app.serve import run

        return run(
            settings.config,
            data=settings.data,
            role=role,
            sockets=sockets,
            instance=settings.instance,
            secrets=secrets,
            source=source,
            seen=seen,
        )


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 9999,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where its ledger is kept; in memory when left out.")
    ] = None,
) -> int:
    """Run the sandbox provider over HTTP, with a ledger of its own at GET /ledger."""
    from tollgate.sandbox.server import serve

    try:
        serve(host, port, ledger)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the sandbox cannot start on {host}:{port}: {why(error)}; see --port and --ledger"
        ) from error
    return OK


for command in (cli_books.sql, cli_books.replay, cli_books.reconcile):
    app.command()(command)
