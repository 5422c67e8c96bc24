"""Learning rules on one device: what they ask of it, and what they reach."""

from morphax.experiments.rules.design import Design as Design
from morphax.experiments.rules.echo import Echo as Echo
from morphax.experiments.rules.energy import Energy as Energy
from morphax.experiments.rules.layered import Layered as Layered
from morphax.experiments.rules.mnist import Mnist as Mnist
from morphax.experiments.rules.online import Online as Online
from morphax.experiments.rules.quantum import Quantum as Quantum
from morphax.experiments.rules.scaling import Scaling as Scaling
from morphax.experiments.rules.twin import Twin as Twin
from morphax.experiments.rules.which import Which as Which
