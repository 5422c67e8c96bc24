"""What the experiments that train spiking neurons share."""

import os
from collections.abc import Callable
from typing import Any, Literal, Self

import jax.numpy as jnp
import optax
from jaxtyping import Array
from pydantic import model_validator

from morphax.lab.experiment import BaseConfig, parameter
from morphax.learning.optimisers import split_rows
from morphax.learning.rule import Metrics
from morphax.learning.train import adjustable


class SpikingConfig(BaseConfig):
    """A network with Poisson inputs, trained through many chains at once; the paper's numbers where it prints them."""

    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    neurons: int = parameter(64, "recurrently connected", ge=1)
    inputs: int = parameter(128, "Poisson sources", ge=1)
    input_rate: float = parameter(0.7, "of a source", unit="1/ms", gt=0)
    membrane_time_constant: float = parameter(10.0, "of the voltages", unit="ms", gt=0)
    synaptic_time_constant: float = parameter(5.0, "of the currents", unit="ms", gt=0)
    time_step: float = parameter(1.0, "of forward Euler", unit="ms", gt=0)
    input_mean: float = parameter(0.02, "mean weight of the inputs", ge=0)
    input_deviation: float = parameter(0.3, "standard deviation of the weights of the inputs", ge=0)
    recurrent_deviation: float = parameter(0.1, "standard deviation of the recurrent weights", ge=0)
    learning_rate: float = parameter(0.05, "of Adam, for deviations from the mean of a row of weights", gt=0)
    mean_learning_rate: float = parameter(0.0008, "of Adam, for the mean of a row", gt=0)
    decay: float = parameter(150.0, "epochs in which both fall by a factor e", gt=0)
    epochs: int = parameter(600, "updates", ge=1)
    every: int = parameter(20, "epochs between two looks", ge=1)
    chains: int = parameter(20, "independent runs of a network in an epoch", ge=1)
    intervals: int = parameter(10, "of a chain", ge=1)
    interval: int = parameter(50, "time steps of an interval", ge=1)
    burn_in: int = parameter(20, "time steps of a chain that do not count", ge=0)
    seeds: int = parameter(3, "networks", ge=1, extent=True)

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        for name in ("membrane_time_constant", "synaptic_time_constant"):
            if getattr(self, name) < self.time_step:
                blamed = "time_step" if "time_step" in self.model_fields_set else name
                allowed = f"<= {name}, {getattr(self, name):g}" if blamed == "time_step" else f">= {self.time_step:g}"
                raise ValueError(f"{blamed} is {getattr(self, blamed):g}; it must be {allowed}")
        if self.input_rate * self.time_step > 1:
            raise ValueError(
                f"input_rate is {self.input_rate:g}; it must be <= {1 / self.time_step:g}: one spike in a time_step of "
                f"{self.time_step:g} ms"
            )
        for name in ("intervals", "test_intervals"):
            steps = getattr(self, name, self.intervals) * self.interval
            if steps <= self.burn_in:
                raise ValueError(f"burn_in is {self.burn_in}; it must be < {steps}, {name} times interval")
        return self

    def memory(self) -> float:
        # Back-propagation keeps, of every time step of every chain, what each neuron is and each source sends, for the
        # networks that are trained at once; a judged network holds the spikes of its longer chains.
        kept = self.chains * self.intervals * self.interval * (3.0 * self.neurons + self.inputs)
        tested = getattr(self, "test_chains", 0) * getattr(self, "test_intervals", 0) * self.interval * self.neurons
        weights = 6 * self.seeds * self.neurons * (self.neurons + self.inputs)
        at_once = min(self.seeds, os.cpu_count() or 1)
        return self.bytes_of_number * (at_once * (kept + 4 * tested) + weights)

    def options(self) -> dict[str, Any]:
        """For `SpikingNetwork.random`."""
        names = ("membrane_time_constant", "synaptic_time_constant", "time_step", "input_mean", "input_deviation")
        names += ("recurrent_deviation", "input_rate")
        return {name: getattr(self, name) for name in names} | {"steps_per_input": self.interval}

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with falling rates, apart for means and deviations."""
        rates = {"deviations": self.learning_rate, "means": self.mean_learning_rate}
        return adjustable(_split_adam, **rates, decay=self.decay)

    def training(self) -> dict[str, Any]:
        """The numbers of a training, for `Trainer.train`: best is what has the least loss on the chains "further"."""
        return {"optimiser": self.optimiser(), "steps": self.epochs, "every": self.every, "score": _least_loss}


def _least_loss(watched: dict[str, Metrics]) -> Array:
    """One function for all trainings: they compile once."""
    return -watched["further"]["loss"]


def _split_adam(deviations: Any, means: Any, decay: Any) -> optax.GradientTransformation:
    def falling(rate: Any) -> Callable[[Any], Any]:
        return lambda count: rate * jnp.exp(-count / decay)

    return split_rows(optax.adam(falling(deviations)), optax.adam(falling(means)))
