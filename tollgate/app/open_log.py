"""Which log a configuration means, and how it is opened: to be written by one gateway, or read by a tool."""

from pathlib import Path

from tollgate.config import Config
from tollgate.log import Log, WritableLog
from tollgate.topics import load_topics

LOG_FOLDER = "log"  # of the data folder; the embedded log lies in it


async def open_log(config: Config, data: Path, *, client_id: str) -> WritableLog:
    """The log to be written. Raises `LogLocked` when another process writes the embedded one."""
    topics = load_topics()
    if config.log.embedded:
        from tollgate.log.embedded import EmbeddedLog

        return await EmbeddedLog.open(data / LOG_FOLDER, topics, durability=config.log.durability)
    from tollgate.log.kafka import KafkaLog

    return await KafkaLog.connect(",".join(config.log.bootstrap_servers), topics, client_id=client_id)


async def open_log_to_read(config: Config, data: Path) -> Log:
    """The log to be read, whether a gateway runs or not. Raises `ConfigError` when there is none."""
    if config.log.embedded:
        from tollgate.log.embedded import EmbeddedLog

        return await EmbeddedLog.open_readonly(data / LOG_FOLDER)
    return await open_log(config, data, client_id="tollgate-reader")
