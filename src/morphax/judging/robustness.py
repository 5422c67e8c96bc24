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
from morphax.judging.stimulus import Span, stimulus
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate, evolve
from morphax.substrates.imperfections import Noisy, mismatch, quantise


class Trial(NamedTuple):
    """One way to be worse.

    - `text`: what its values are.
    - `values`: that are tried where nothing else is said.
    - `answers(substrate, value, span, drives, key=key)`: the readings, before noise of reading them.
    - `outside`: values that a device outside stands, which is never driven beyond its range.
    - `numbers`: roles of which the substrate must have some.
    - `several`: whether a device is one of many.
    - `whole`: whether values are whole numbers.
    """

    text: str
    values: tuple[float, ...]
    answers: Callable[..., Array]
    outside: tuple[float, ...] = ()
    numbers: tuple[Role, ...] = ()
    several: bool = False
    whole: bool = False


def _driven(substrate: Substrate, drives: Array, key: PRNGKeyArray) -> Array:
    return evolve(substrate, drives, key=key)[0]


def _chip(substrate: Substrate, size: Array, span: Span, drives: Array, *, key: PRNGKeyArray) -> Array:
    made, run = jax.random.split(key)
    vary: dict[str, Role] = {"weights": "weight", "devices": "device"}
    varied = [name for name, role in vary.items() if _has(substrate, role)]
    return _driven(mismatch(substrate, **dict.fromkeys(varied, size), key=made), drives, run)


def _rounded_weights(substrate: Substrate, bits: int, span: Span, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(quantise(substrate, bits), drives, key)


def _as_designed(substrate: Substrate, value: Array | int, span: Span, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(substrate, drives, key)


def _converted(read: np.ndarray, bits: int) -> np.ndarray:
    """Each reading by a converter whose range is that of the reading."""
    least, width = np.min(read, axis=0), np.ptp(read, axis=0)
    levels = 2**bits - 1
    return least + width / levels * np.round((read - least) / np.where(width > 0, width, 1.0) * levels)


def _warm(substrate: Substrate, amplitude: Array, span: Span, drives: Array, *, key: PRNGKeyArray) -> Array:
    return _driven(Noisy(substrate, amplitude), drives, key)


def _scaled(substrate: Substrate, scale: Array, span: Span, drives: Array, *, key: PRNGKeyArray) -> Array:
    """Around the middle of the range, where the device was meant to work; a simulated one also beyond its ends."""
    return _driven(substrate, span.middle + scale * (drives - span.middle), key)


TRIALS = {
    "spread": Trial(
        "relative spread of all weights and devices",
        (0.02, 0.05, 0.1),
        _chip,
        numbers=("weight", "device"),
        several=True,
    ),
    "weight_bits": Trial("bits of every weight", (2, 3, 4, 6, 8), _rounded_weights, numbers=("weight",), whole=True),
    "reading_bits": Trial("bits of every reading", (4, 6, 8, 12), _as_designed, outside=(4, 6, 8, 12), whole=True),
    "state_noise": Trial("noise in the state after every input", (1e-3, 1e-2, 1e-1), _warm),
    "scale": Trial("scale of the input", (0.1, 0.3, 1.0, 3.0), _scaled, outside=(0.1, 0.3, 1.0)),
}
"""The ways to be worse that `withstands` knows."""


def trials_of(substrate: Substrate) -> list[str]:
    """The trials that mean something for a substrate: of a device outside, those that leave it as it is."""
    if not substrate.differentiable:
        return [name for name, trial in TRIALS.items() if trial.outside]
    fitting = [
        name
        for name, trial in TRIALS.items()
        if not trial.numbers or any(_has(substrate, role) for role in trial.numbers)
    ]
    return [name for name in fitting if name != "state_noise" or _can_be_warm(substrate)]


def withstands(
    substrate: Substrate,
    trial: str,
    values: Sequence[float] = (),
    *,
    chips: int = 8,
    points: int = 10_000,
    kind: str = "uniform",
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
      every input (`Noisy`), in units of the state; "scale": inputs times a factor, around the middle of their range.
    - `values`: that are tried; empty: those of `TRIALS`.
    - `points`, `kind`, `low`, `high`: of the drive (`stimulus`).
    - `chips`: devices at each value, where they differ ("spread").
    - `noise`: on every reading, in units of its deviation: without any a chip loses nothing by being another one.

    **Returns:** a dataset with `total` and `memory` (linear), both over (`trial`, chip).

    **Raises:** `ValueError` for another trial, one that this substrate cannot stand (`trials_of`), values below 0, or
    scales beyond the range of a device outside.

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
    inside = substrate.differentiable
    values = tuple(values) or (asked.values if inside else asked.outside)
    for place, value in enumerate(values):
        if asked.whole:
            check_count(f"values[{place}]", value, 2 if trial == "weight_bits" else 1)
        else:
            check_range(f"values[{place}]", value, low=0.0, high=np.inf if inside else max(asked.outside))
    drive_key, chip_key = jax.random.split(key)
    drives, span = jnp.asarray(stimulus(points, kind, low=low, high=high, key=drive_key)), Span(low, high)
    keys = jax.random.split(chip_key, chips if asked.several else 1)
    amount = jnp.asarray(noise)

    def answers(value: float) -> list[np.ndarray]:
        given = int(value) if asked.whole else jnp.asarray(value, float)
        read = eqx.Partial(_read, substrate, asked.answers, given, span, drives, amount)
        # A device outside answers one question at a time.
        return list(np.asarray(_at_once(read, keys) if inside else [read(each) for each in keys]))

    # Readings that are only rounded are taken once.
    once = answers(values[0]) if trial == "reading_bits" else []
    rows = []
    for value in values:
        responses = [_converted(each, int(value)) for each in once] or answers(value)
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
            "memory": ((trial, "chip"), [row.linear_memory.values for row in rows], unit),
        },
        {trial: (trial, list(values), unit | {"long_name": asked.text}), "chip": np.arange(len(keys))},
    )


def _read(
    substrate: Substrate,
    answers: Callable[..., Array],
    value: Array | int,
    span: Span,
    drives: Float[Array, " time"],
    noise: Array,
    key: PRNGKeyArray,
) -> Array:
    run, meter = jax.random.split(key)
    read = answers(substrate, value, span, drives, key=run)
    return read + noise * jnp.std(read, axis=0) * jax.random.normal(meter, read.shape, read.dtype)


@eqx.filter_jit
def _at_once(read: Callable[[PRNGKeyArray], Array], keys: PRNGKeyArray) -> Float[Array, "chips time readings"]:
    return jax.vmap(read)(keys)


def _can_be_warm(substrate: Substrate) -> bool:
    """Whether noise in its state is defined: of some methods to simulate it is not."""
    key = jax.random.key(0)
    try:
        jax.eval_shape(lambda: substrate.disturb(substrate.initial_state(key=key), 0.1, key=key))
    except ValueError:
        return False
    return True


def _has(substrate: Substrate, role: Role) -> bool:
    return bool(jax.tree.leaves(select(substrate, role)[0]))
