"""Calls of tools and their results, matched by name and order where a protocol's clients leave the ids out. Pure."""

from collections import defaultdict, deque

ANY = ""  # the name of a result that does not say which tool it is of


class Calls:
    """The calls of a conversation so far, to find which one a result belongs to."""

    def __init__(self) -> None:
        self._made = 0
        self._open: set[str] = set()  # ids
        self._by_name: defaultdict[str, deque[str]] = defaultdict(deque)

    def call(self, name: str, id: str | None) -> str:
        self._made += 1
        id = id or f"call_{self._made}"
        self._open.add(id)
        for key in {name, ANY}:
            self._by_name[key].append(id)
        return id

    def result(self, name: str, id: str | None) -> str:
        """The id of the call with this id, or else of the first by this name that has no result yet."""
        waiting = self._by_name[name]
        while id is None and waiting:
            found = waiting.popleft()
            id = found if found in self._open else None
        id = id or self.call(name, None)
        self._open.discard(id)
        return id
