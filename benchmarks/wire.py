"""What translation costs, in CPU time: a unary call and a chunk of a stream, from each dialect to each protocol.

Unary is everything of one attempt: request, answer, final body. A chunk is one content event of the provider's, fed as
it would come from the network; the beginning and the end of the stream are taken off.
"""

import time
from collections.abc import Callable, Iterator

from benchmarks.figures import Figure, figure
from benchmarks.wire_answers import STREAM, TEXT, UNARY
from tollgate.events import Dialect
from tollgate.wire import Body, Exchange, Extras
from tollgate.wire.exchange import PROTOCOLS, WIRES, exchange_for

REQUEST_ID = "0198b4f0-0000-7000-8000-000000000000"
EXTRAS = Extras(
    request_id=REQUEST_ID,
    provider="local",
    model="mock",
    cost_usd="0.000123456",
    attempts=1,
    reason="only candidate",
    price_version="2026-11-01",
)
CHUNKS = 200
RUNS = 100  # of each round, of which the one counts that was disturbed least
WANTED_CHUNK_US = 20  # of a dialect that is passed through


def wire(rounds: int) -> Iterator[Figure]:
    """Microseconds of CPU for each pair."""
    for dialect in WIRES:
        body = request(dialect, stream=False)
        yield _figure(f"{dialect}: what admission asks", rounds, lambda d=dialect, b=body: WIRES[d].ask(b))
        for protocol in PROTOCOLS:
            name = f"{dialect} to {protocol}" if dialect != protocol else f"{dialect} passed through"
            yield _figure(f"{name}, unary", rounds, lambda d=dialect, p=protocol: run_unary(d, p))
            chunks = [_chunk_us(dialect, protocol) for _ in range(rounds)]
            target = f"≤ {WANTED_CHUNK_US}" if dialect == protocol else ""
            yield figure(f"{name}, chunk", "µs", chunks, target=target)


def _figure(name: str, rounds: int, run: Callable[[], object]) -> Figure:
    return figure(name, "µs", [cpu_us(run) for _ in range(rounds)])


def _chunk_us(dialect: Dialect, protocol: Dialect) -> float:
    ends = cpu_us(lambda: run_stream(dialect, protocol, chunks=1))
    return (cpu_us(lambda: run_stream(dialect, protocol, chunks=CHUNKS)) - ends) / (CHUNKS - 1)


def cpu_us(run: Callable[[], object]) -> float:
    """The best of several runs, in CPU time of this thread: other work on the machine does not count."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time()
        run()
        best = min(best, time.thread_time() - began)
    return best * 1e6


def request(dialect: Dialect, *, stream: bool) -> Body:
    match dialect:
        case "gemini":
            contents = [{"role": "user", "parts": [{"text": TEXT}]}]
            return {"model": "m", "stream": stream, "contents": contents, "generationConfig": {"maxOutputTokens": 256}}
        case "responses":
            said = [{"role": "user", "content": TEXT}]
            return {"model": "m", "max_output_tokens": 256, "stream": stream, "input": said}
        case "ollama":
            said = [{"role": "user", "content": TEXT}]
            return {"model": "m", "options": {"num_predict": 256}, "stream": stream, "messages": said}
        case _:
            return {"model": "m", "max_tokens": 256, "stream": stream, "messages": [{"role": "user", "content": TEXT}]}


def start(dialect: Dialect, protocol: Dialect, *, stream: bool) -> Exchange:
    return exchange_for(
        dialect,
        protocol,
        request(dialect, stream=stream),
        request_id=REQUEST_ID,
        model="mock",
        max_output_tokens=256,
        headers={},
    )


def run_unary(dialect: Dialect, protocol: Dialect) -> bytes:
    exchange = start(dialect, protocol, stream=False)
    exchange.answer(UNARY[protocol])
    return exchange.final(EXTRAS)


def run_stream(dialect: Dialect, protocol: Dialect, *, chunks: int) -> bytes:
    exchange = start(dialect, protocol, stream=True)
    before, content, after = STREAM[protocol]
    exchange.feed(before)
    for _ in range(chunks):
        exchange.feed(content)
    exchange.feed(after)
    exchange.finish()
    return exchange.final(EXTRAS)


SECTIONS: dict[str, Callable[[int], Iterator[Figure]]] = {"wire": wire}
