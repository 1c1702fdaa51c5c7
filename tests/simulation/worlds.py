"""The worlds there are, by name, and the bugs that are planted in each to see that it finds them."""

from collections.abc import Callable, Mapping

from tests.simulation.embedded import EmbeddedSimulation
from tests.simulation.kafka import KafkaSimulation
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.mutants_kafka import KAFKA_MUTANTS
from tests.simulation.world import Simulation

WORLDS: Mapping[str, Callable[[str], Simulation]] = {"embedded": EmbeddedSimulation, "kafka": KafkaSimulation}
PLANTED: Mapping[str, Mapping[str, Mutant]] = {"embedded": MUTANTS, "kafka": KAFKA_MUTANTS}
