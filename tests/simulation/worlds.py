"""The worlds there are, by name."""

from collections.abc import Callable

from tests.simulation.embedded import EmbeddedSimulation
from tests.simulation.kafka import KafkaSimulation
from tests.simulation.world import Simulation

WORLDS: dict[str, Callable[[str], Simulation]] = {"embedded": EmbeddedSimulation, "kafka": KafkaSimulation}
