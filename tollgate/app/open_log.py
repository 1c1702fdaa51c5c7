"""Which log a configuration means, and how it is opened: to be written by one gateway, or read by a tool."""

from pathlib import Path

from tollgate.config import Config
from tollgate.log import Log, WritableLog
from tollgate.topics import load_topics

LOG_FOLDER = "log"  # of the data folder; the embedded log lies in it


async def open_log(config: Config, data: Path, *, role: str, client_id: str) -> WritableLog:
    """The log to be written by a process of the role; on Kafka it may have to be waited for (`until_open`).

    Raises `LogLocked` when another process writes the embedded one.
    """
    topics = load_topics()
    if config.log.embedded:
        from tollgate.log.embedded import EmbeddedLog

        return await EmbeddedLog.open(data / LOG_FOLDER, topics, durability=config.log.durability)
    from tollgate.app.access import access_of
    from tollgate.log.kafka import KafkaLog

    brokers = ",".join(config.log.bootstrap_servers)
    return KafkaLog(
        brokers, topics, client_id=client_id, security=config.log.security, access=access_of(role), patient=True
    )


async def open_log_to_read(config: Config, data: Path, *, role: str = "reader") -> Log:
    """The log to be read as the role does, whether a gateway runs or not. Raises `ConfigError` when there is none."""
    if config.log.embedded:
        from tollgate.log.embedded import EmbeddedLog

        return await EmbeddedLog.open_readonly(data / LOG_FOLDER)
    from tollgate.app.access import access_of
    from tollgate.log.kafka import KafkaLog

    return await KafkaLog.connect(
        ",".join(config.log.bootstrap_servers),
        load_topics(),
        client_id="tollgate-reader",
        security=config.log.security,
        access=access_of(role),
        read_only=True,
    )
