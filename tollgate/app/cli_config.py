"""`tollgate config`: say whether the configuration is right, and what it may say."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tollgate.app.cli_output import print_json, print_table

app = typer.Typer(help="The configuration file.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Default: gateway.yaml, if there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(config: ConfigFile = None, json: Json = False) -> int:
    """Read gateway.yaml and pricing.yaml as 'serve' would, and show what they come to.

    Exit code 3 comes with the line that is wrong.
    """
    import msgspec

    from tollgate.app.settings import resolve
    from tollgate.environment import PRICING_FILE, config_file
    from tollgate.prices.book import PriceBook

    file = config_file(os.environ, config)
    settings = resolve(os.environ, config=config)
    settings.config.log.security.ssl_context()  # looks at the files that it names
    pricing = Path(PRICING_FILE)
    PriceBook.load(pricing if pricing.exists() else None)
    if json:
        print_json(msgspec.to_builtins(settings.config, enc_hook=str))
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
    return 0


@app.command()
def schema() -> int:
    """Print the JSON Schema of gateway.yaml, for editors."""
    from tollgate.app.docs_settings import json_schema

    print_json(json_schema())
    return 0
