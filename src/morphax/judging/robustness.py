"""What of a device's capacity is left where it is built, read, driven or kept less well than it was designed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_range
from morphax._lazy import xr
from morphax.judging.capacities import information_processing_capacity
from morphax.judging.stimulus import stimulus
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate, evolve
from morphax.substrates.imperfections import Noisy, mismatch, quantise


class Trial(NamedTuple):
    """One way to be worse.

    - `text`: what its values are.
    - `values`: that are tried where nothing else is said.
    - `answers(substrate, value, drives, key=key)`: the readings, before noise of reading them.
    - `numbers`: roles of which the substrate must have some.
    - `several`: whether a device is one of many.
    - `whole`: whether values are whole numbers.
    """

    text: str
    values: tuple[float, ...]
    answers: Callable[..., Array]
    numbers: tuple[Role, ...] = ()
    several: bool = False
    whole: bool = False


def _driven(substrate: Substrate, drives: Array, key: PRNGKeyArray) -> Array:
    return evolve(substrate, drives, key=key)[0]


def _chip(substrate: Substrate, size: Array, drives: Array, *, key: PRNGKeyArray) -> Array:
    made, run = jax.random.split(key)
    vary: dict[str, Role] = {"weights": "weight", "devices": "device"}
    varied = [name for name, role in vary.items() if _has(substrate, role)]
    return _driven(mismatch(substrate, **dict.fromkeys(varied, size), key=made), drives, run)


def _rounded_weights(substrate: Substrate, bits: int, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(quantise(substrate, bits), drives, key)


def _rounded_readings(substrate: Substrate, bits: int, drives: Array, *, key: PRNGKeyArray) -> Array:
    """Each reading by a converter whose range is that of the reading."""
    read = _driven(substrate, drives, key)
    least, range_ = jnp.min(read, axis=0), jnp.ptp(read, axis=0)
    levels = 2**bits - 1
    return least + range_ / levels * jnp.round((read - least) / jnp.where(range_ > 0, range_, 1.0) * levels)


def _warm(substrate: Substrate, amplitude: Array, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(Noisy(substrate, amplitude), drives, key)


def _scaled(substrate: Substrate, scale: Array, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(substrate, scale * drives, key)


TRIALS = {
    "spread": Trial(
        "relative spread of all weights and devices", (0.02, 0.05, 0.1), _chip, ("weight", "device"), several=True
    ),
    "weight_bits": Trial("bits of every weight", (2, 3, 4, 6, 8), _rounded_weights, ("weight",), whole=True),
    "reading_bits": Trial("bits of every reading", (4, 6, 8, 12), _rounded_readings, whole=True),
    "state_noise": Trial("noise in the state after every input", (1e-3, 1e-2, 1e-1), _warm),
    "scale": Trial("scale of the input", (0.1, 0.3, 1.0, 3.0), _scaled),
}
"""The ways to be worse that `withstands` knows."""
OUTSIDE = ("reading_bits", "scale")
"""Those that need nothing to be changed in a device."""


def trials_of(substrate: Substrate) -> list[str]:
    """The trials that mean something for a substrate: of a device outside, those that leave it as it is."""
    if not substrate.differentiable:
        return list(OUTSIDE)
    return [
        name
        for name, trial in TRIALS.items()
        if not trial.numbers or any(_has(substrate, role) for role in trial.numbers)
    ]


def withstands(
    substrate: Substrate,
    trial: str,
    values: Sequence[float] = (),
    *,
    chips: int = 8,
    points: int = 10_000,
    low: float = -1.0,
    high: float = 1.0,
    noise: float = 1e-2,
    washout: int = 200,
    max_degree: int = 6,
    max_delay: int = 30,
    max_products: int = 1500,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """Capacities of a device that is made, read, driven or kept less well.

    **Arguments:**

    - `trial`: "spread": other devices from the same production line, every weight and device parameter off by a
      relative standard deviation (`mismatch`); "weight_bits": weights rounded (`quantise`); "reading_bits": each
      reading by a converter with the range of that reading; "state_noise": a warm device, noise in the state after
      every input (`Noisy`), in units of the state; "scale": inputs times a factor.
    - `values`: that are tried; empty: those of `TRIALS`.
    - `chips`: devices at each value, where they differ ("spread").
    - `noise`: on every reading, in units of its deviation: without any a chip loses nothing by being another one.

    **Returns:** a dataset with `total` and `memory` (linear), both over (`trial`, chip).

    **Raises:** `ValueError` for another trial, one that this substrate cannot stand (`trials_of`), or values below 0.

        >>> import jax
        >>> from morphax import EchoStateNetwork
        >>> from morphax.judging.robustness import withstands
        >>> network = EchoStateNetwork.random(10, key=jax.random.key(0))
        >>> found = withstands(network, "reading_bits", (2, 12), noise=0.0, points=3000, key=jax.random.key(1))
        >>> bool(found.total[0, 0] < 0.8 * found.total[1, 0])
        True
    """
    check_choice("trial", trial, tuple(TRIALS))
    check_choice("trial", trial, tuple(trials_of(substrate)))
    check_count("chips", chips, 1)
    check_range("noise", noise, low=0.0)
    asked = TRIALS[trial]
    values = tuple(values) or asked.values
    for place, value in enumerate(values):
        if asked.whole:
            check_count(f"values[{place}]", value, 2 if trial == "weight_bits" else 1)
        else:
            check_range(f"values[{place}]", value, low=0.0)
    drive_key, chip_key = jax.random.split(key)
    drives = jnp.asarray(stimulus(points, low=low, high=high, key=drive_key))
    keys = jax.random.split(chip_key, chips if asked.several else 1)
    read = _read if not substrate.differentiable else _compiled
    amount = jnp.asarray(noise)
    rows = []
    for value in values:
        given = int(value) if asked.whole else jnp.asarray(value, float)
        responses = [np.asarray(read(substrate, asked.answers, given, drives, amount, each)) for each in keys]
        rows.append(
            information_processing_capacity(
                np.asarray(drives),
                responses,
                washout=washout,
                max_degree=max_degree,
                max_delay=max_delay,
                max_products=max_products,
            )
        )
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "total": ((trial, "chip"), [row.total.values for row in rows], unit),
            "memory": ((trial, "chip"), [row.memory.sum("delay").values for row in rows], unit),
        },
        {trial: (trial, list(values), unit | {"long_name": asked.text}), "chip": np.arange(len(keys))},
    )


def _read(
    substrate: Substrate,
    answers: Callable[..., Array],
    value: Array | int,
    drives: Float[Array, " time"],
    noise: Array,
    key: PRNGKeyArray,
) -> Array:
    run, meter = jax.random.split(key)
    read = answers(substrate, value, drives, key=run)
    return read + noise * jnp.std(read, axis=0) * jax.random.normal(meter, read.shape, read.dtype)


_compiled = eqx.filter_jit(_read)


def _has(substrate: Substrate, role: Role) -> bool:
    return bool(jax.tree.leaves(select(substrate, role)[0]))
