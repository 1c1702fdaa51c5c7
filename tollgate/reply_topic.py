"""Replies between processes: a worker writes them to the topic `replies`, the ingress at the address reads them.

An address is `<partition>/<ingress>/<life>`: two ingresses may share a partition, and a restarted one is not given what
was meant for its former life. Bodies are sealed under the seal of their request.
"""

import asyncio
import logging
from collections.abc import Mapping

from tollgate.errors import LogError, Unreadable
from tollgate.events import IngressBeat, ProbeAnswered, ProbeSent, ReplySent, decode, encode
from tollgate.ids import new_request_id
from tollgate.log import Log, Position, Record
from tollgate.replies import LocalReplies, Reply
from tollgate.sealed import Sealer, SealError

TOPIC = "replies"
REQUESTS = "requests"
BEAT_S = 3.0
ELSEWHERE_BYTES_PER_S = 1 << 20  # of a long answer, where it cannot be known how fast its client reads

log = logging.getLogger(__name__)


def new_address(source: Log, instance: str) -> str:
    """The address of this life of an ingress."""
    return f"{source.partition_for(TOPIC, instance.encode())}/{instance}/{new_request_id()}"


def partition_of(address: str) -> int:
    """The partition of `replies` that an address names."""
    return int(address.split("/", 1)[0])


class TopicMailbox:
    """The worker's side. Who waits in this very process gets replies directly, without the topic."""

    def __init__(self, source: Log, sealer: Sealer, local: LocalReplies) -> None:
        self._log = source
        self._sealer = sealer
        self._local = local
        self._newest: dict[int, asyncio.Future[Position]] = {}  # by partition: what was appended last

    def send(self, address: str, reply: Reply) -> None:
        """See `Mailbox.send`. A reply that cannot be written is a gap, which the ingress notices by `seq`."""
        if address == self._local.address:
            self._local.send(address, reply)
            return
        try:
            event = _written(address, reply, self._sealer)
            number = partition_of(address)
            appended = asyncio.ensure_future(
                self._log.append(TOPIC, None, encode(event), partition=number, worth="passing")
            )
        except (LogError, SealError, ValueError) as error:
            log.error("a reply to request %s is lost: %s", reply.request_id, error)
            self._local.dropped["lost"] += 1
            return
        self._newest[number] = appended
        _ignore_failure(appended)

    async def arrived(self, address: str | None = None) -> None:
        """See `Mailbox.arrived`. What could not be written is lost, and not waited for."""
        if address == self._local.address:
            return
        numbers = self._newest.keys() if address is None else {partition_of(address)} & self._newest.keys()
        if numbers:
            await asyncio.wait([self._newest[number] for number in numbers])

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None:
        """See `Mailbox.room`. How far a client elsewhere has read is not known: it is sent so much in a second."""
        if address == self._local.address:
            await self._local.room(address, request_id, sent_bytes)
        else:
            await asyncio.sleep(sent_bytes / ELSEWHERE_BYTES_PER_S)

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        """See `Mailbox.is_waiting`: known only of this process."""
        return self._local.is_waiting(address, request_id) if address == self._local.address else None

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        """See `Mailbox.probe`."""
        if address == self._local.address:
            return self._local.probe(address, request_id, org_id=org_id, epoch=epoch)
        event = ProbeSent(address=address, request_id=request_id, org_id=org_id, epoch=epoch)
        number = partition_of(address)
        _ignore_failure(self._log.append(TOPIC, None, encode(event), partition=number, worth="passing"))
        return None


class ReplyReader:
    """The ingress's side: hands what its partition brings to those who wait, and answers for them."""

    def __init__(self, source: Log, sealer: Sealer, local: LocalReplies) -> None:
        self._log = source
        self._sealer = sealer
        self._local = local
        self.partition = partition_of(local.address)
        self.position = 0  # of the partition: the next record to be read

    async def start(self) -> Mapping[int, int]:
        """Where to read from: what came before this life is for nobody here. To be called before anybody waits."""
        self.position = (await self._log.ends(TOPIC))[self.partition]
        return {self.partition: self.position}

    async def run(self, start: Mapping[int, int]) -> None:
        """Read without pause, for ever."""
        async for records in self._log.follow(TOPIC, start):
            for record in records:
                self._take(record)
            self.position = records[-1].offset + 1

    def _take(self, record: Record) -> None:
        try:
            event = decode(record.value or b"")
        except Unreadable as error:
            log.error("replies %d/%d is unreadable: %s", record.partition, record.offset, error)
            return
        if isinstance(event, ReplySent) and event.address == self._local.address:
            try:
                self._local.send(event.address, _read(event, self._sealer))
            except SealError as error:  # the gap that it leaves is noticed with the next reply, or at the deadline
                log.error("a reply to request %s cannot be opened: %s", event.request_id, error)
                self._local.dropped["lost"] += 1
        elif isinstance(event, ProbeSent) and event.address == self._local.address:
            self._answer(event)

    def _answer(self, probe: ProbeSent) -> None:
        address, request_id = probe.address, probe.request_id
        waiting = self._local.probe(address, request_id, org_id=probe.org_id, epoch=probe.epoch)
        answer = ProbeAnswered(request_id=request_id, epoch=probe.epoch, waiting=waiting is True)
        _ignore_failure(self._log.append(REQUESTS, probe.org_id.encode(), encode(answer)))

    async def beat(self) -> None:
        """Tell every owner that this ingress lives; for ever."""
        beat = encode(IngressBeat(address=self._local.address))
        while True:
            for partition in range(self._log.partitions(REQUESTS)):
                _ignore_failure(self._log.append(REQUESTS, None, beat, partition=partition, worth="new"))
            await asyncio.sleep(BEAT_S)


def _written(address: str, reply: Reply, sealer: Sealer) -> ReplySent:
    body = reply.body
    if body and reply.seal:
        body = sealer.seal_under(reply.seal, reply.org_id, reply.request_id, body)
    return ReplySent(
        address=address,
        request_id=reply.request_id,
        org_id=reply.org_id,
        epoch=reply.epoch,
        attempt=reply.attempt,
        seq=reply.seq,
        status=reply.status,
        headers=reply.headers,
        body=body,
        seal=reply.seal,
        last=reply.last,
        upstream_us=reply.upstream_us,
    )


def _read(event: ReplySent, sealer: Sealer) -> Reply:
    body = event.body
    if body and event.seal:
        body = sealer.open(event.seal, event.org_id, event.request_id, body)
    return Reply(
        request_id=event.request_id,
        org_id=event.org_id,
        epoch=event.epoch,
        attempt=event.attempt,
        seq=event.seq,
        status=event.status,
        headers=event.headers,
        body=body,
        seal=event.seal,
        last=event.last,
        upstream_us=event.upstream_us,
    )


def _ignore_failure(appended: object) -> None:
    """A lost reply is noticed by its reader; the future must not complain that nobody looked at it."""
    add = getattr(appended, "add_done_callback", None)
    if add is not None:
        add(lambda future: future.cancelled() or future.exception())
