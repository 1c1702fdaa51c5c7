"""The built-in AI provider: deterministic, configurable by the model's name, and honest in its own books.

It speaks the dialects of OpenAI (chat completions, responses) and Anthropic, in process (`create_app` is an ASGI app)
or over HTTP (`serve`), and records every call in a ledger against which the gateway's books can be checked. It imports
nothing else of tollgate, so that one mistake cannot sit on both sides. Model names are explained in
`tollgate.sandbox.knobs`.
"""

from tollgate.sandbox.app import create_app
from tollgate.sandbox.delivery import Cut
from tollgate.sandbox.ledger import Call, Ledger, LedgerFull
from tollgate.sandbox.server import main, serve

__all__ = ["Call", "Cut", "Ledger", "LedgerFull", "create_app", "main", "serve"]
