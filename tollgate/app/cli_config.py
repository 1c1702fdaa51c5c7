"""`tollgate config`: say whether the configuration is right, and what it may say."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tollgate.app.cli_output import print_json, print_table
from tollgate.errors import ConfigError, Mistakes

if TYPE_CHECKING:
    from tollgate.config import Config

app = typer.Typer(help="The configuration file.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Default: gateway.yaml, if there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

ENVIRONMENT = 3  # the exit code of a configuration that is wrong

_PLACE = re.compile(r"([^:]+):(\d+): ")


@app.command()
def check(config: ConfigFile = None, json: Json = False) -> int:
    """Read gateway.yaml and pricing.yaml as 'serve' would, and show what they come to.

    Exit code 3 comes with every mistake that can be found, and its line.
    """
    import msgspec

    from tollgate.app.settings import resolve
    from tollgate.environment import PRICING_FILE, config_file
    from tollgate.prices.book import PriceBook

    mistakes = Mistakes()
    file, pricing = None, Path(PRICING_FILE)
    settings = book = None
    with mistakes:
        file = config_file(os.environ, config)
        settings = resolve(os.environ, config=config)
    if settings is not None:
        with mistakes:
            settings.config.log.security.ssl_context()  # looks at the files that it names
        _check_files(settings.config, mistakes)
    with mistakes:
        book = PriceBook.load(pricing if pricing.exists() else None)
    checked = [str(path) for path in (file, pricing) if path is not None and path.exists()]
    if json and mistakes.problems:
        print_json({"ok": False, "checked": checked, "problems": [_problem(text) for text in mistakes.problems]})
        return ENVIRONMENT
    mistakes.tell()
    assert settings is not None
    assert book is not None
    if json:
        print_json({**msgspec.to_builtins(settings.config, enc_hook=str), "checked": checked})
        return 0
    print_table(
        ("provider", "protocol", "base_url", "accounts", "models", "priority"),
        (
            (
                provider.name,
                provider.protocol,
                f"built-in {provider.builtin}" if provider.builtin else provider.base_url,
                ", ".join(account.name for account in provider.accounts),
                ", ".join(provider.models),
                provider.priority,
            )
            for provider in settings.config.providers.values()
        ),
    )
    print(f"\n{file or 'no gateway.yaml, so the defaults'}: ok; log {settings.config.log.broker}, data {settings.data}")
    print(f"{pricing if pricing.exists() else 'no pricing.yaml, so the catalogue'}: ok; prices {book.version}")
    return 0


def _check_files(config: "Config", mistakes: Mistakes) -> None:
    """Look at the files of credentials: what is in them is for the calls, but that they are there."""
    for provider in config.providers.values():
        for account in provider.accounts:
            google = account.google.service_account_file if account.google is not None else None
            for key, file in (("api_key_file", account.api_key_file), ("service_account_file", google)):
                if file is not None and not os.access(file, os.R_OK):
                    with mistakes:
                        raise ConfigError(
                            f"providers: {provider.name}/{account.name}: {key} {file} cannot be read here; "
                            "put it there, or correct the path"
                        )


def _problem(text: str) -> dict[str, object]:
    """A mistake with its file and line, where it has one."""
    place = _PLACE.match(text)
    return {
        "file": place[1] if place else None,
        "line": int(place[2]) if place else None,
        "message": text[place.end() :] if place else text,
    }


@app.command()
def schema() -> int:
    """Print the JSON Schema of gateway.yaml, for editors."""
    from tollgate.app.docs_settings import json_schema

    print_json(json_schema())
    return 0
