"""Which partition a key belongs to: Kafka's murmur2, the same on every adapter and in every process. Pure."""

from functools import lru_cache

CACHED_KEYS = 4096

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=CACHED_KEYS)
def partition_of(key: bytes | None, partitions: int) -> int:
    """The partition among `partitions` that Kafka's default partitioner gives the key; 0 for no key."""
    return 0 if key is None else (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit hash of `org.apache.kafka.common.utils.Utils.murmur2`, unsigned."""
    length = len(data)
    state = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for i in range(0, whole, 4):
        word = int.from_bytes(data[i : i + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        state = state * _MULTIPLIER & _MASK ^ word
    if whole != length:
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK
    return state ^ state >> 15
