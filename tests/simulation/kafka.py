"""The world of Kafka: workers own the partition one at a time, and do not always know; ingresses hold the clients."""

import asyncio

from tests.simulation import checker, succession
from tests.simulation.books import Facts
from tests.simulation.clients import Client
from tests.simulation.cluster import Ingress, Worker
from tests.simulation.front import Front
from tests.simulation.group import Group
from tests.simulation.life import Life
from tests.simulation.log import STATE
from tests.simulation.provider import ProviderCall
from tests.simulation.scenario import Fault
from tests.simulation.scenario_kafka import INGRESS_DEATHS, WORKER_DEATHS, kafka_scenario
from tests.simulation.world import SETTLE_S, Simulation, delay_checkpoint
from tollgate.log import Record
from tollgate.processors.owner import Owner

LONGEST_HALT_S = 15.0
SHORTEST_HALT_S = 1.5  # that lets somebody else take over in between
LONGEST_CUT_S = 15.0
LATEST_ACK_S = 12.0
SHORTEST_DELAY_S = 6.0  # of the requests of an ingress that is cut off: it waits for 5 s
LONGEST_DELAY_S = 10.0


class KafkaSimulation(Simulation):
    """Some workers and ingresses over one log."""

    def __init__(self, seed: str) -> None:
        scenario, self.cluster = kafka_scenario(seed)
        super().__init__(seed, scenario)
        self.one_at_a_time = False
        self.group = Group(self, self.cluster.session_s)
        self.succession = succession.Witness(self)
        self._restless = 0  # so many times the partition is given on when it was just taken over
        self._present: dict[str, Life] = {}  # the newest life of each name

    @property
    def workers(self) -> list[Worker]:
        return [life for life in self.lives if isinstance(life, Worker)]

    @property
    def ingresses(self) -> list[Ingress]:
        return [life for life in self.lives if isinstance(life, Ingress)]

    def begin(self) -> None:
        self.loop.outside_task(self.group.run())
        for number in range(self.cluster.workers):
            self._start(f"worker-{number}")
        for number in range(self.cluster.ingresses):
            self._start(f"ingress-{number}")

    def died(self, life: Life) -> None:
        assert isinstance(life, Worker | Ingress)
        delay_s = self.chance(f"restart/{life.name}").random() * self.knobs.restart_s
        self.loop.outside_later(delay_s, self._start_again, life.slot)

    def _start_again(self, slot: str) -> None:
        if self.supervised and not self._present[slot].alive:
            self._start(slot)

    def _start(self, slot: str) -> Life:
        number = sum(1 for life in self.lives if life.name.startswith(f"{slot}."))
        life: Worker | Ingress
        if slot.startswith("worker"):
            life = Worker(self, slot, number, self.group)
            self.started(life, WORKER_DEATHS)
        else:
            life = Ingress(self, slot, number)
            self.started(life, INGRESS_DEATHS)
        life.log.reply_mishaps = self.cluster.reply_mishaps
        self._present[slot] = life
        life.start()
        return life

    def fronts(self) -> list[Front]:
        return [ingress.front for ingress in self.ingresses if ingress.running and ingress.front is not None]

    def landed(self, event: Facts, offset: int, by: str) -> None:
        self.succession.landed(event, offset, by)

    def _landed(self, record: Record, by: str) -> None:
        super()._landed(record, by)
        if record.topic == STATE and record.value is not None and (record.key or b"").startswith(b"mark@"):
            self.succession.marked()

    def called(self, call: ProviderCall, life: Life) -> None:
        self.succession.called(call, life)

    def taken_over(self, life: Life, owner: Owner, position: int) -> None:
        super().taken_over(life, owner, position)
        if self._restless and self.storm:
            self._restless -= 1
            delay_s = self.chance(f"restless/{self.loop.time()}").random() ** 3
            self.loop.outside_later(delay_s, lambda: self.loop.outside_task(self.group.rebalance()))

    def seen(self, client: Client) -> None:
        super().seen(client)
        self.succession.told(client)

    def facts(self) -> dict[str, int]:
        return {**self.succession.facts, "evicted alive": self.group.evictions}

    # Faults -----------------------------------------------------------------------------------------------------------

    async def break_something(self, fault: Fault) -> None:
        later, size = self.loop.outside_later, fault.size
        holder = self.group.holder
        running = holder is not None and holder.running
        match fault.kind:
            case "rebalance":
                self.loop.outside_task(self.group.rebalance())
            case "rebalances":
                self._restless = 1 + int(size * 4)
                self.loop.outside_task(self.group.rebalance())
            case "halt in a take-over":
                for worker in self.workers:
                    if worker.alive and worker is not holder:
                        worker.halt_at = "takeover.took", SHORTEST_HALT_S + size * LONGEST_HALT_S
                self.loop.outside_task(self.group.rebalance())
            case "stop" if holder is not None and running:
                self.loop.outside_task(holder.stop(drain_s=self.cluster.drain_s, says_goodbye=size < 0.5))
            case "kill" if holder is not None:
                holder.kill("SIGKILL")
            case "halt" if holder is not None:
                if size < 0.5:
                    delay_checkpoint(holder, holder.processing, size)
                holder.halt(size * LONGEST_HALT_S)
            case "halt between check and call" if holder is not None:
                place = "call.before" if size < 0.3 else "owner.admitted"
                holder.halt_at = place, SHORTEST_HALT_S + size * LONGEST_HALT_S / 2
            case "cut off" if holder is not None and running:
                if size < 0.3:
                    delay_checkpoint(holder, holder.processing, size)
                holder.cut_off = True
                holder.disturb()
                later(size * LONGEST_CUT_S, setattr, holder, "cut_off", False)
            case "late acks" if holder is not None:
                holder.disturb()
                holder.log.hold_back_acks("completions", size * LATEST_ACK_S)
            case "lost acks" if holder is not None:
                holder.disturb()
                holder.log.break_at_next_append()
            case "redeliver" if holder is not None:
                holder.processing.send_back(int(size * holder.processing.position))
            case "halt runner" | "kill runner":
                self._disturb(
                    [worker for worker in self.workers if worker is not holder and worker.processing.runs_on],
                    fault,
                )
            case "cut off ingress":
                for ingress in self.ingresses:
                    ingress.log.hold_back("requests", SHORTEST_DELAY_S + fault.size * LONGEST_DELAY_S)
            case "kill ingress" | "halt ingress":
                self._disturb(self.ingresses, fault)

    def _disturb(self, lives: "list[Worker] | list[Ingress]", fault: Fault) -> None:
        running = [life for life in lives if life.running]
        if not running:
            return
        life = running[int(fault.size * len(running))]
        if fault.kind.startswith("kill"):
            life.kill("SIGKILL")
        else:
            life.halt(fault.size * LONGEST_HALT_S)

    # Rest -------------------------------------------------------------------------------------------------------------

    async def come_to_rest(self) -> None:
        for life in self.lives:
            life.crash_at = life.halt_at = None
            life.go_on()
            if isinstance(life, Worker):
                life.cut_off = False
        await self.until(self._idle, what="rest")
        await asyncio.sleep(SETTLE_S)
        await self.until(self._idle, what="rest")
        holder = self.group.holder
        assert holder is not None and holder.processing.owner is not None
        checker.at_rest(self, holder, holder.processing.owner)
        self.succession.at_rest()
        self.supervised = False
        await self.silence(self.lives, "the end of the run")
        last = await self._recover()
        await last.work(last.processing.partitions.checkpoint)
        await self.deliver_again(last.processing)
        last.kill("rested")
        (await self._recover()).kill("seen")
        self.lose_rows()
        (await self._recover()).kill("seen")

    def _idle(self) -> bool:
        holder = self.group.holder
        flying = any(life.log.flying for life in self.workers if life.alive)
        return holder is not None and holder.processing.idle and not flying

    async def _recover(self) -> Worker:
        """What the next life finds is compared when it has taken over."""
        worker = self._start("worker-0")
        assert isinstance(worker, Worker)
        await self.until(lambda: worker.processing.owner is not None, worker, what="a take-over")
        return worker
