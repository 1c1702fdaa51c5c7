"""The page `docs/sandbox.md`, made from what the sandbox says of itself: `python -m tollgate.app.docs_sandbox`."""

import inspect

from tollgate.sandbox import knobs

PAGE = """# The sandbox provider

<!-- Made by `make docs` from `tollgate/sandbox/knobs.py`; edit that. -->

A provider that needs no account: built in, deterministic, at every endpoint and in every dialect, and priced (1 USD per
million input tokens, 4 USD per million output tokens), so that budgets and books are real. A model's name says what it
does. As a process of its own, with a ledger of every call at `GET /ledger`: `tollgate sandbox --port 9999`. `sandbox:
false` in gateway.yaml switches the built-in one off. `sandbox/sandbox`, `sandbox-anthropic/sandbox`,
`sandbox-responses/sandbox` and `sandbox-gemini/sandbox` ask it in one of its dialects.

{names}
"""


def page() -> str:
    """`docs/sandbox.md`."""
    return PAGE.format(names=inspect.getdoc(knobs))


if __name__ == "__main__":
    print(page(), end="")
