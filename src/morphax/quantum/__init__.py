"""Operators, states, maps and measurements of quantum systems."""

from morphax.quantum.measurement import (
    Measurement as Measurement,
)
from morphax.quantum.measurement import (
    PhotonNumbers as PhotonNumbers,
)
from morphax.quantum.measurement import (
    Populations as Populations,
)
from morphax.quantum.measurement import (
    Quadratures as Quadratures,
)
from morphax.quantum.measurement import (
    TopLevels as TopLevels,
)
from morphax.quantum.measurement import (
    basis_states as basis_states,
)
from morphax.quantum.measurement import (
    coherent_state as coherent_state,
)
from morphax.quantum.measurement import (
    homodyne_distribution as homodyne_distribution,
)
from morphax.quantum.measurement import (
    poisson_weights as poisson_weights,
)
from morphax.quantum.measurement import (
    reduced as reduced,
)
