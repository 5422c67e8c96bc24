"""Operators, states, maps and measurements of quantum systems."""

from morphax.quantum.measurement import (
    Measurement as Measurement,
    PhotonNumbers as PhotonNumbers,
    Populations as Populations,
    Quadratures as Quadratures,
    TopLevels as TopLevels,
    basis_states as basis_states,
    coherent_state as coherent_state,
    homodyne_distribution as homodyne_distribution,
    poisson_weights as poisson_weights,
    reduced as reduced,
)
