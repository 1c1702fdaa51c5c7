"""The page `docs/providers.md`, made from the presets: `python -m tollgate.app.docs_providers`."""

from collections.abc import Iterator
from typing import get_args

import msgspec

from tollgate.events import Dialect
from tollgate.presets import NO_KEY, Preset, presets
from tollgate.wire import Quirks

PAGE = """# Providers

<!-- Made by `make docs` from `tollgate/presets.yaml`; edit that. -->

A provider speaks one of the protocols {protocols}. For those below a key and the models that are wanted are enough:

```yaml
providers:
  groq:       {{api_key: "${{GROQ_API_KEY}}", models: [llama-3.3-70b-versatile]}}
  openrouter: {{api_key: "${{OPENROUTER_API_KEY}}", models: ["anthropic/*", "openai/*"]}}
  fast:       {{preset: vllm, base_url: "http://gpu-1:8000/v1", models: ["llama*"]}}   # another name, another place
  mine:       {{protocol: openai, base_url: "http://10.0.0.7:9000/v1", models: [house]}}   # known to nobody
```

How a provider departs from its protocol is data: a *quirk*, in `tollgate/presets.yaml` or under `quirks` in
gateway.yaml. Where a provider states what a call cost (`states_cost`), that is the cost, unless `pricing.yaml` has a
price for the model. Azure's older addresses, for example:

```yaml
providers:
  azure:
    base_url: https://RESOURCE.openai.azure.com
    api_key: "${{AZURE_OPENAI_API_KEY}}"
    models: [my-deployment]
    quirks: {{path: "/openai/deployments/{{model}}/chat/completions?api-version=2024-10-21", key_header: api-key}}
```

## Accounts

A provider has one account or several, which share its calls by weight. An account has one credential:

```yaml
providers:
  openai:
    models: [gpt-4o]
    accounts:
      - {{name: a, api_key: "${{OPENAI_API_KEY}}"}}
      - {{name: b, api_key_file: /run/secrets/openai-b, weight: 2}}      # read again when it changes
  azure:
    base_url: https://RESOURCE.openai.azure.com/openai/v1
    models: [my-deployment]
    accounts:
      - name: entra
        oauth:                                                        # any OAuth 2.0 server; renewed before they expire
          token_url: https://login.microsoftonline.com/TENANT/oauth2/v2.0/token
          client_id: "${{AZURE_CLIENT_ID}}"
          client_secret: "${{AZURE_CLIENT_SECRET}}"
          scope: https://cognitiveservices.azure.com/.default
```

`google: {{service_account_file: …}}` asks for tokens with a service account's key. `aws` signs requests: with
`access_key_id` and `secret_access_key`, with a `profile`, or with what AWS's own tools would find (web identity,
container and instance roles); with `role_arn` it assumes a role by these. Tokens and roles are renewed beside the
calls. A refresh token that its server replaces at each use is kept in memory only: where several workers run, give each
an account of its own, or use client credentials.

### Set while the gateway runs

```console
$ tollgate credentials set openai b < key            # or type it when asked; never as a word of the command
$ tollgate credentials set bedrock --kind aws < keys.json
$ tollgate credentials list
$ tollgate credentials delete openai b
```

The next call of the account takes it; calls under way end with the old one. It goes before what stands in gateway.yaml,
until it is deleted. An account with `managed: true` needs no credential there:

```yaml
providers:
  openai: {{models: [gpt-4o], accounts: [{{name: main, managed: true}}]}}
```

By HTTP that is `GET /v1/credentials`, and `GET`, `PUT`, `DELETE` of `/v1/credentials/PROVIDER/ACCOUNT` with the admin
key. The body is one of `{{"api_key": …}}`, `{{"oauth": {{…}}}}`, `{{"aws": {{…}}}}`, with the fields of gateway.yaml,
and `{{"google": {{"service_account": {{…}}}}}}` with the content of the key file. Nobody can read it again: what is
shown is its kind, its last four characters, and when and by whom it was set. It is stored encrypted under
`TOLLGATE_SECRET`, which must come from the environment for this: [ADR 21][sealed].

[sealed]: adr/0021-credentials-that-are-set-are-sealed-before-they-are-written.md

## Known by name

| name | protocol | address | key | quirks |
|---|---|---|---|---|
{rows}
"""

_DEFAULTS = Quirks()


def page() -> str:
    """`docs/providers.md`."""
    protocols = ", ".join(f"`{protocol}`" for protocol in get_args(Dialect))
    rows = "\n".join(_row(name, preset) for name, preset in presets().items())
    return PAGE.format(protocols=protocols, rows=rows)


def _row(name: str, preset: Preset) -> str:
    address = f"`{preset.base_url}`" if preset.base_url else "`base_url`, your own"
    key = "" if preset.key == NO_KEY else f"`{preset.key}`"
    return f"| `{name}` | {preset.protocol} | {address} | {key} | {', '.join(_quirks(preset.quirks))} |"


def _quirks(quirks: Quirks) -> Iterator[str]:
    for field in msgspec.structs.fields(Quirks):
        value = getattr(quirks, field.name)
        if value == getattr(_DEFAULTS, field.name):
            continue
        if value is True:
            yield f"`{field.name}`"
        else:
            text = " ".join(sorted(value)) if isinstance(value, frozenset) else value
            yield f"`{field.name}: {text}`"


if __name__ == "__main__":
    print(page(), end="")
