"""What may be written to a terminal, which obeys some texts: names of models, tags and users come from clients."""


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with whatever cannot be seen escaped: an escape sequence becomes `\x1b...`, a line break `\n`.

    Characters of `keep` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )
