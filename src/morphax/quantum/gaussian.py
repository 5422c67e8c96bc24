r"""Gaussian states of bosonic modes, and their populations.

A Gaussian state of modes $a_1, ..., a_M$ is known by the means $\zeta = \langle \xi \rangle$ and the covariance
$\sigma = \tfrac12 \langle \{\delta\xi, \delta\xi^\dagger\} \rangle$ of $\xi = (a, a^\dagger)$; the vacuum, and every
coherent state, has $\sigma = 1/2$.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from morphax._checks import check_count


def gaussian_populations(
    mean: Complex[Array, " modes"], covariance: Complex[Array, "twice twice"], levels: int
) -> Float[Array, "..."]:
    r"""Populations $\langle n | \rho | n \rangle$ of the Fock states below `levels` of every mode, an axis a mode.

    With $Q = \sigma + 1/2$, $A = X (1 - Q^{-1})$, $X$ exchanging $a$ and $a^\dagger$, $\gamma = \zeta^\dagger Q^{-1}$,
    elements of the density matrix are multivariate Hermite polynomials, by the recursion

    $$\sqrt{k_i + 1}\, G_{k + e_i} = \gamma_i G_k + \sum_j A_{ij} \sqrt{k_j}\, G_{k - e_j}, \qquad
      G_0 = e^{-\zeta^\dagger Q^{-1} \zeta / 2} / \sqrt{\det Q}$$

    (N. Quesada et al., Phys. Rev. A 100, 022341 (2019); F. Miatto and N. Quesada, Quantum 4, 366 (2020)). All
    `levels`^(2 modes) of them are computed.

    **Arguments:**

    - `mean`: of the annihilation operators.
    - `covariance`: $\sigma$, Hermitian, in the order above.
    - `levels`: of each mode, >= 1.

        >>> import jax.numpy as jnp
        >>> from morphax.quantum.gaussian import gaussian_populations
        >>> found = gaussian_populations(jnp.array([1 + 0j]), jnp.eye(2) / 2, 2)  # Poisson, mean 1
        >>> [round(p, 4) for p in found.tolist()]
        [0.3679, 0.3679]
    """
    check_count("levels", levels, 1)
    modes = len(mean)
    zeta, identity = jnp.concatenate([mean, mean.conj()]), jnp.eye(2 * modes)
    inverse = jnp.linalg.inv(covariance + identity / 2)
    gamma = zeta.conj() @ inverse
    exchanged = jnp.roll(identity - inverse, modes, axis=0)
    determinant = jnp.linalg.det(covariance + identity / 2).real
    first = jnp.exp(-(gamma @ zeta).real / 2) / jnp.sqrt(determinant)
    elements, roots = first.astype(gamma.dtype), jnp.sqrt(jnp.arange(levels))
    # One index after the other: for each value of the new one, all values of those before.
    for new in range(2 * modes):
        slices = [elements]
        for k in range(levels - 1):
            following = gamma[new] * slices[k]
            for old in range(new):
                lowered = jnp.moveaxis(jnp.roll(slices[k], 1, axis=old), old, -1) * roots
                following += exchanged[new, old] * jnp.moveaxis(lowered, -1, old)
            if k:
                following += exchanged[new, new] * roots[k] * slices[k - 1]
            slices.append(following / roots[k + 1])
        elements = jnp.stack(slices, axis=-1)
    indices = jnp.array(list(itertools.product(range(levels), repeat=modes)))
    diagonal = elements[tuple(indices.T) * 2]
    return diagonal.real.reshape((levels,) * modes)
