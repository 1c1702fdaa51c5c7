"""What every credential does."""

from collections.abc import Mapping
from typing import Protocol


class Credential(Protocol):
    """One account's credential."""

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        """The headers that authorise this very call. Waits only where nothing valid is there yet.

        Raises `ProviderError` (`auth`) when nothing can be had.
        """
        ...

    def rejected(self) -> None:
        """The provider has refused it (401): get another one, if there can be one, before the next call."""
        ...

    async def keep_fresh(self) -> None:
        """Renew what expires or changes; to be run beside the calls. Returns where nothing ever will."""
        ...
