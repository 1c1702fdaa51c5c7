"""The world of one process on the embedded log: it is killed, stopped, replaced, and started again."""

import asyncio

from tests.simulation import checker
from tests.simulation.front import Front
from tests.simulation.gateway import Gateway
from tests.simulation.life import Life
from tests.simulation.scenario import DEATHS, Fault, embedded_scenario
from tests.simulation.world import SETTLE_S, Simulation, delay_checkpoint
from tollgate.processors.owner import Owner


class EmbeddedSimulation(Simulation):
    """One gateway at a time; two, where one is taken over from without knowing."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed, embedded_scenario(seed))
        self.gateways: list[Gateway] = []
        self.replaced = 0  # how often one was taken over from while it lived

    def begin(self) -> None:
        self._start()

    def died(self, life: Life) -> None:
        if not any(gateway.alive for gateway in self.gateways):
            delay_s = self.chance(f"restart/{life.name}").random() * self.knobs.restart_s
            self.loop.outside_later(delay_s, self._start_again)

    def _start_again(self) -> None:
        if self.supervised and not any(gateway.alive for gateway in self.gateways):
            self._start()

    def fronts(self) -> list[Front]:
        return [gateway.front for gateway in self.gateways if gateway.alive][-1:]

    def taken_over(self, life: Life, owner: Owner, position: int) -> None:
        """Nobody else could end what was open."""
        super().taken_over(life, owner, position)
        if self.books.open and self.books.epoch == owner.ledger.epoch:
            self.violation("I1", f"{life.name} has taken over and left open {sorted(self.books.open)}")

    def facts(self) -> dict[str, int]:
        return {"replaced": self.replaced}

    def _start(self) -> Gateway:
        gateway = Gateway(self, f"gateway-{len(self.gateways)}")
        self.gateways.append(gateway)
        self.started(gateway, DEATHS)
        gateway.start()
        return gateway

    async def break_something(self, fault: Fault) -> None:
        living = [gateway for gateway in self.gateways if gateway.alive]
        if not living:
            return
        present = living[-1]
        match fault.kind:
            case "kill":
                present.kill("SIGKILL")
            case "stop":
                await present.stop()
            case "lost acks":
                present.log.break_at_next_append()
            case "redeliver":
                present.processing.send_back(int(fault.size * present.processing.position))
            case "replace":
                self._replace(present, fault.size)

    def _replace(self, present: Gateway, size: float) -> None:
        """Start another beside it, which knows nothing of it. Often the old one has a checkpoint on its way, which is
        late, and dies in the middle of it."""
        self.replaced += 1
        self.one_at_a_time = False
        self._start()
        if size < 0.5:
            delay_checkpoint(present, present.processing, size)
        self.loop.outside_later(size * 5, present.kill, "SIGKILL, at last")

    async def come_to_rest(self) -> None:
        self.supervised = False
        await self.silence(self.gateways, "the end of the run")
        last = self._start()
        await self.until(lambda: last.processing.idle and not last.log.flying, last, what="rest")
        await asyncio.sleep(SETTLE_S)
        await last.work(last.processing.partitions.checkpoint)
        assert last.processing.owner is not None
        checker.at_rest(self, last, last.processing.owner)
        await self.deliver_again(last.processing)
        last.kill("rested")
        await self._recover()
        self.lose_rows()
        await self._recover()

    async def _recover(self) -> None:
        """What the next life finds is compared when it has taken over."""
        gateway = self._start()
        await self.until(lambda: gateway.processing.owner is not None, gateway, what="a take-over")
        gateway.kill("seen")
