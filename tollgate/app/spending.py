"""What keys have been billed this month, from the books on this machine.

The gateway's processes know a key's budget only where its partition is owned; the books know all of them.
"""

import asyncio
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

from tollgate.errors import TollgateError
from tollgate.log import Log

BILLED = "SELECT key_id, sum(bill_usd) FROM usage WHERE period = ? GROUP BY key_id"


def billed_by_key(data: Path, period: str) -> dict[str, Decimal] | None:
    """USD by key in a period (YYYY-MM, UTC), what is not flushed included; None where there are no books to be read.

    A key without requests is 0.
    """
    from tollgate.app.open_log import LOG_FOLDER
    from tollgate.log.embedded_folder import DATABASE

    if not (data / LOG_FOLDER / DATABASE).exists():
        return None
    try:
        return asyncio.run(_ask(data, period))
    except TollgateError:
        return None  # what is wrong with the books is told by whoever asks them


async def _ask(data: Path, period: str) -> dict[str, Decimal]:
    from tollgate.app.open_log import LOG_FOLDER
    from tollgate.log.embedded import EmbeddedLog
    from tollgate.sinks.sql import open_sql

    log: Log = await EmbeddedLog.open_readonly(data / LOG_FOLDER)
    try:
        with await open_sql(data, log) as connection:
            return defaultdict(Decimal, connection.execute(BILLED, [period]).fetchall())
    finally:
        await log.close()
