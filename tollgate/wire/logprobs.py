"""How likely a provider says that its tokens were. Every dialect here has them in OpenAI's form."""

from tollgate.wire import Body


def read_logprobs(entries: object) -> tuple[Body, ...]:
    """The entries that are objects; alternatives that are none are left out of them."""
    if not isinstance(entries, list):
        return ()
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            others = entry.get("top_logprobs") or []
            told = isinstance(others, list) and all(isinstance(other, dict) for other in others)
            found.append(entry if told else {**entry, "top_logprobs": []})
    return tuple(found)
