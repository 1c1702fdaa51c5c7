"""One life of a gateway: the real owner, calls and control, behind an ingress of a few lines, until it is killed."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

from tests.simulation.clients import ENDPOINTS, ORGANISATION, Client
from tests.simulation.log import PARTITION, ProcessLog, write_rows_to
from tests.simulation.loop import Killed, Process
from tollgate.control import Control, catch_up, follow_control
from tollgate.errors import LogError
from tollgate.events import CancelRequested, CommandIssued, Limits, Request, RequestAccepted, UpdateKey, encode
from tollgate.failpoints import reached
from tollgate.processors.owner import Owner
from tollgate.processors.partitions import Partitions
from tollgate.processors.world import World
from tollgate.replies import LocalReplies
from tollgate.sealed import Sealer

if TYPE_CHECKING:
    from tests.simulation.world import Simulation


NEVER_S = 1e6
DEADLINE_GRACE_S = 30.0  # after its deadline the ingress expects nothing of a request any more


class Gateway:
    """A process of the simulation. `name` is its address, too: no two lives share one."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.name = name
        self.process = Process(name, simulation.loop)
        self.owner: Owner | None = None
        self.position = 0  # the next offset of `requests` that it reads
        self.crash_at: tuple[str, int] | None = None  # a failpoint, and how many times it is passed before
        self.log = ProcessLog(
            simulation.log,
            self.process,
            simulation.loop,
            simulation.chance(f"log/{name}"),
            one_order=simulation.knobs.one_order,
            latency=simulation.knobs.latency,
            landed=self._has_landed,
        )
        self._simulation = simulation
        self._chance: Random = simulation.chance(f"gateway/{name}")
        self._replies = LocalReplies(name)
        self._control = Control()
        self._sealer = Sealer(simulation.secret, simulation.seals)
        self._checkpointing = False
        self._checkpoints: asyncio.Task[None] | None = None
        self.partitions = Partitions(
            World(
                log=self.log,
                replies=self._replies,
                control=self._control,
                sealer=self._sealer,
                config=simulation.config,
                book=simulation.book,
                transports=simulation.providers,
                instance="sim",
                address=name,
                fatal=self._fatal,
                draw=self._chance.random,
                now_ms=simulation.wall_ms,
            )
        )
        rows = simulation.log.rows
        self.partitions.keep_checkpoints(lambda _: _shuffled(rows(), self._chance), write_rows_to(self.log))

    @property
    def alive(self) -> bool:
        return self.process.alive

    def start(self) -> None:
        self._work(self._run)

    def kill(self, reason: str) -> None:
        if self.alive:
            self._simulation.says(self.name, f"killed: {reason}")
            self.process.kill()

    async def stop(self) -> None:
        """What SIGTERM does: the last checkpoint, then every call is ended. The process is gone afterwards."""
        for _ in range(20):  # best in the middle of a checkpoint
            if self._checkpointing:
                break
            await asyncio.sleep(0.01)
        if not self.alive:
            return
        stopped = self.process.spawn(self._stop())
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.process.at_death(partial(_set, gone))
        await asyncio.wait((stopped, gone), return_when=asyncio.FIRST_COMPLETED)
        if stopped.done() and not stopped.cancelled() and stopped.exception() is None:
            self._simulation.stopped_in_order(self)
        self.kill("stopped")

    @property
    def idle(self) -> bool:
        """Everything that was asked has been decided and ended, durably."""
        owner = self.owner
        if owner is None or self.position < len(self._simulation.log.records("requests")):
            return False
        written = owner.ledger.next_offset == self._simulation.books.next_offset
        return written and not owner.calls and not owner.ledger.open

    def reached(self, failpoint: str) -> None:
        """Called for each failpoint that this process passes."""
        if self._is_due(failpoint):
            self.kill(f"at {failpoint}")
            raise Killed(failpoint)

    def _has_landed(self, topic: str) -> None:
        """A record of this process is durable; what it has appended after it is on its way."""
        if self._is_due(f"landed.{topic}"):
            self.kill(f"after a record of {topic}")

    def _is_due(self, place: str) -> bool:
        self._simulation.passed.add(place)
        if self.crash_at is None or self.crash_at[0] != place:
            return False
        self.crash_at = (place, self.crash_at[1] - 1)
        return self.crash_at[1] < 0

    def send_back(self, position: int) -> None:
        """Deliver the events of `requests` from there again."""
        self.position = position
        self._simulation.log.wake("requests")

    # The processors ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await catch_up(self.log, self._control)
        self._work(partial(follow_control, self.log, self._control))
        self.position = await self.partitions.take_over(PARTITION)
        self.owner = next(iter(self.partitions.owners))
        self._simulation.taken_over(self)
        self._checkpoints = self._work(self._checkpoint_often)
        requests = self._simulation.log.records("requests")
        while True:
            if self.position >= len(requests):
                await self._simulation.log.news("requests")
                continue
            await asyncio.sleep(self._simulation.knobs.latency.draw(self._chance))
            for record in requests[self.position : self.position + self._chance.randint(1, 10)]:
                self.position = record.offset + 1
                waiting = self.partitions.receive(
                    PARTITION, record.offset, record.timestamp_ms, record.value or b"", _ignore
                )
                if waiting is not None:
                    await waiting
                if self.position != record.offset + 1:
                    break  # sent back meanwhile

    async def checkpoint(self) -> None:
        """One checkpoint, now."""
        if self.alive:
            await self.process.spawn(self.partitions.checkpoint())

    async def _checkpoint_often(self) -> None:
        while True:
            await asyncio.sleep(self._chance.random() * self._simulation.knobs.checkpoint_s)
            self._checkpointing = True
            await self.partitions.checkpoint()
            self._checkpointing = False

    async def _stop(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.cancel()
            await asyncio.wait((self._checkpoints,))
            await self.partitions.checkpoint()
        await self.partitions.give_up({PARTITION})

    def _work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        return self.process.spawn(self._watched(work))

    async def _watched(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except LogError as error:
            self._fatal(str(error))
        except Exception as error:
            self._simulation.violation("internal error", f"{self.name}: {type(error).__name__}: {error}")
            self._fatal("internal error")

    def _fatal(self, reason: str) -> NoReturn:
        self.kill(f"fatal: {reason}")
        raise Killed(reason)

    # The ingress ------------------------------------------------------------------------------------------------------

    def submit(self, client: Client) -> None:
        client.gateway = self.name
        self.process.spawn(self._serve(client))

    async def _serve(self, client: Client) -> None:
        waiter = self._replies.open(client.request_id)
        appended = self.log.append("requests", ORGANISATION.encode(), encode(self._accept(client)))
        appended.add_done_callback(partial(self._appended, client))
        try:
            async with asyncio.timeout(min(client.patience_s or NEVER_S, client.deadline_s + DEADLINE_GRACE_S)):
                while not client.done:
                    reply = await waiter.get()
                    self._simulation.seen(client, reply)
                    if client.has_enough and not client.done:
                        raise TimeoutError
        except TimeoutError:
            client.hung_up = True
            self._simulation.gone(client)
            cancel = CancelRequested(request_id=client.request_id, reason="client disconnected")
            self.log.append("requests", ORGANISATION.encode(), encode(cancel))
        finally:
            self._replies.close(client.request_id)

    def _accept(self, client: Client) -> RequestAccepted:
        now_ms = self._simulation.wall_ms()
        raw = json.dumps(client.body).encode()
        seal, sealed = self._sealer.seal(ORGANISATION, client.request_id, raw, now_ms)
        return RequestAccepted(
            request=Request(
                request_id=client.request_id,
                org_id=ORGANISATION,
                key_id=client.key_id,
                endpoint=ENDPOINTS[client.dialect],
                dialect=client.dialect,
                model=client.model,
                stream=client.stream,
                accepted_ms=now_ms,
                deadline_ms=now_ms + int(client.deadline_s * 1000),
                reply_to=self.name,
                body_bytes=len(raw),
            ),
            body=sealed,
            seal=seal,
            control_offset=self._control.offset,
        )

    def _appended(self, client: Client, appended: "asyncio.Future[object]") -> None:
        if appended.exception() is None:
            client.accepted = True
            reached("request.appended")

    def change_limits(self, command_id: str, key_id: str, limits: Limits) -> None:
        """Ask for other limits of a key, as the management API does."""
        action = UpdateKey(key_id=key_id, limits=limits)
        command = CommandIssued(command_id=command_id, actor="admin", action=action, reply_to=self.name)
        self.process.context.copy().run(self.log.append, "requests", ORGANISATION.encode(), encode(command))


def _shuffled(rows: dict[str, bytes], chance: Random) -> dict[str, bytes]:
    """A table has no order."""
    items = list(rows.items())
    chance.shuffle(items)
    return dict(items)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _ignore() -> None:
    """Acknowledgements tell where to go on from; here, as in the gateway, the journal says that."""
