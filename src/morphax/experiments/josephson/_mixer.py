"""What the experiments with the Josephson mixer share: its numbers, and reservoirs judged on many seeds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.lab.experiment import BaseConfig, NonNegative, parameter
from morphax.learning.ensemble import map_members, member_keys
from morphax.learning.readout import Reading, fit_readout
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.base import Task
from morphax.units import MHz, ns, us

FOLDS = 5  # of `fit_readout`
Ridge = Annotated[float, Field(ge=0)] | Literal["cross-validate"]


class Conditions(eqx.Module):
    """How a reservoir is tried: points of its task, noise on its readings, and what the readout is fitted with."""

    train_points: int
    test_points: int
    noise: Float[Array, ""]
    readout: dict[str, Any]


class ReservoirConfig(BaseConfig):
    """Seeds, sizes and readout: what every reservoir experiment has."""

    seeds: int = parameter(10, "independent repetitions", ge=1, le=1000, extent=True)
    train_points: int = parameter(1000, "training points", ge=16)
    test_points: int = parameter(1000, "test points", ge=16)
    noise: float = parameter(0.0, "standard deviation of Gaussian noise on every reading", ge=0)
    bias: bool = parameter(False, "whether the readout learns a constant (Eq. 2 has none)")
    ridge: Ridge = parameter(0.0, "readout: 0 pseudo-inverse, a relative strength, or cross-validate")

    def memory(self) -> float:
        # All seeds at once; of each all readings, as they are, with noise, centred, and twice in the decomposition.
        # Cross-validation holds the training readings once more for each fold, centred and decomposed.
        points = self.points()
        copies = 5.0 + (3.0 * FOLDS if self.ridge == "cross-validate" else 0.0)
        return self.seeds * self.bytes_of_number * (copies * points * self.columns() + self.numbers_of_state())

    def points(self) -> int:
        """All points of a task."""
        return self.train_points + self.test_points

    def columns(self) -> int:
        """Numbers that are held for each point: of the widest reading, and of the answers."""
        return 0

    def numbers_of_state(self) -> int:
        """Numbers that a substrate's state takes while it evolves."""
        return 0

    @property
    def readout(self) -> dict[str, Any]:
        """The keyword arguments of `fit_readout`."""
        return {"ridge": self.ridge, "bias": self.bias}

    def conditions(self) -> Conditions:
        return Conditions(self.train_points, self.test_points, jnp.asarray(self.noise), self.readout)


class MixerConfig(ReservoirConfig):
    """The two-mode mixer with working parameters; see `JosephsonMixer.two_mode`."""

    coupling: float = parameter(2.0, "conversion rate g / 2 pi", unit="MHz", ge=0)
    damping_rate: tuple[NonNegative, ...] = parameter(
        (17.0, 21.0), "dissipation of each mode", unit="rad/us", min_length=1
    )
    drive_amplitude: float = parameter(2.77, "drive amplitude at an input of 1", unit="sqrt(rad/us)", gt=0)
    interval: float = parameter(100.0, "how long an input is held", unit="ns", gt=0)
    levels: int = parameter(8, "levels per mode", ge=2, le=64)
    method: Literal["auto", "coherent", "fock"] = parameter("auto", "closed form, or master equation")
    shots: int | None = parameter(None, "measurement shots per reading; null: exact populations", ge=1)

    @model_validator(mode="after")
    def _measured_states_exist(self) -> Self:
        for name, measured in self.asked_states().items():
            if measured > self.states:
                # What was set is to blame; where nothing was, the number itself.
                named = [field for field in ("levels", "damping_rate") if field in self.model_fields_set]
                blamed = name if name in self.model_fields_set or not named else named[0]
                raise ValueError(
                    f"{blamed} is {getattr(self, blamed)}; {len(self.damping_rate)} modes (damping_rate) of "
                    f"{self.levels} levels have {self.states} states, and {name}, {measured}, must be <= {self.states}"
                )
        return self

    @model_validator(mode="after")
    def _something_enters(self) -> Self:
        if not any(self.damping_rate):
            raise ValueError(
                f"damping_rate is {self.damping_rate}; one must be > 0: a drive enters through a port that damps"
            )
        return self

    @property
    def states(self) -> int:
        """How many basis states there are."""
        return self.levels ** len(self.damping_rate)

    def asked_states(self) -> dict[str, int]:
        """How many are measured, by the name of the field that says so."""
        names = ("measured", "fewer", "full")
        return {name: getattr(self, name) for name in names if name in type(self).model_fields}

    def columns(self) -> int:
        return max(self.asked_states().values(), default=1)

    def numbers_of_state(self) -> int:
        # The density matrix is complex; a propagation holds it some six times (stages of the integrator).
        return 6 * 2 * self.states**2 if self.method == "fock" else 0

    def mixer(self, **changes: Any) -> JosephsonMixer:
        """The mixer of this configuration; `changes` are arguments of `JosephsonMixer`, in its units."""
        arguments: dict[str, Any] = {
            "coupling": self.coupling * MHz,
            "damping_rate": jnp.array(self.damping_rate) / us,
            "drive_amplitude": self.drive_amplitude / us**0.5,
            "interval": self.interval * ns,
            "levels": self.levels,
            "method": self.method,
            "shots": self.shots,
        }
        return JosephsonMixer(**(arguments | changes))


class WaveformConfig(MixerConfig):
    """Periods of sine and square waves: whole ones, of 8 points."""

    train_points: int = parameter(1000, "training points, in periods of 8", ge=16, multiple_of=8)
    test_points: int = parameter(1000, "test points, in periods of 8", ge=16, multiple_of=8)


def check_washout(config: Any) -> None:
    """Refuse a washout that leaves fewer training points than cross-validation cuts into folds."""
    left = config.train_points - config.washout
    if left < FOLDS:
        # What was set is to blame.
        blamed = "washout" if "washout" in config.model_fields_set else "train_points"
        raise ValueError(
            f"{blamed} is {getattr(config, blamed)}; train_points - washout is {left}, and it must be >= {FOLDS}"
        )


def over_seeds(one: Callable[..., Any], key: PRNGKeyArray, *operands: Any) -> Callable[[range], Any]:
    """What gives `one(*operands, key)` for some seeds: NumPy arrays with the seed as first axis.

    Calls with the same function of a module, arrays of equal shapes and equal other operands have one compiled program
    in common. So numbers that a sweep may change are given as arrays.
    """
    program = eqx.filter_jit(eqx.Partial(one, *operands))
    met = []  # seeds so far: the first of them compiles, ahead of the others

    def of(seeds: range) -> Any:
        results = map_members(program, member_keys(key, seeds), compiled=bool(met))
        met.append(seeds)
        return jax.tree.map(np.asarray, results)

    return of


def lagged(task: Task, lags: int) -> Reading:
    """The latest inputs, newest first, as a reading: what a linear readout without a reservoir sees; 0 before them."""
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    places = jnp.arange(inputs.size)[:, None] - jnp.arange(lags)
    read, split = jnp.where(places < 0, 0.0, inputs[places]), task.train_inputs.size
    return Reading(read[task.washout : split], read[split:])


def surely(of_seeds: xr.DataArray) -> float:
    """Mean over seeds less two standard errors."""
    return float(of_seeds.mean() - 2 * of_seeds.std(ddof=1) / of_seeds.size**0.5)


def answers_of_first(
    train: Float[Array, "train neurons"],
    targets: Float[Array, "train outputs"],
    test: Float[Array, "test neurons"],
    sizes: tuple[int, ...],
    **readout: Any,
) -> Float[Array, "sizes test outputs"]:
    """Test outputs when only the first n neurons are measured, for every n in `sizes` (all, where there are fewer)."""
    return jnp.stack([fit_readout(train[:, :n], targets, **readout)(test[:, :n]) for n in sizes])
