"""Coupled phase oscillators: one iteration of equilibrium propagation by sweeps and by following the dynamics.

    python benchmarks/phase_oscillators.py [--quick]

A layered network of 64-200-10 oscillators reads 300 digits: free relaxation, nudged relaxation, gradient; single
precision. First untrained, then after 100 updates. Contenders:

- morphax sweeping to a largest force of 1e-4, from the random state or after a prefix of the dynamics;
- the paper's way in the same library: adaptive Runge-Kutta of order 5(4) (Diffrax, Tsit5) to T = 100;
- PyTorch, plain: classical Runge-Kutta with fixed steps to T = 100, and to where its median force is that of the
  sweeps, or T = 400.

The force that is left is shown with each (median and largest over the images, nudged state): T = 100 is not rest. A
contender that takes more than 5 s is measured once. The second table is XOR: 100 networks of 5 oscillators, 1000 steps
each, in one call of `train`.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from morphax import PhaseOscillators
from morphax.dynamics.relaxation import AdaptiveRungeKutta, BlockSweeps, Relaxer, RungeKutta
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import EquilibriumPropagation
from morphax.learning.train import train
from morphax.substrates.energy import Nudge, phase_overlap
from morphax.tasks import phase_digits, xor

BATCH, STRENGTH, KEY = 300, 0.1, jax.random.key(0)
SWEEPS = BlockSweeps(1e-4, 1000)
WAYS: dict[str, Relaxer] = {
    "morphax, sweeps to 1e-4": SWEEPS,
    "morphax, dynamics to T = 10, then sweeps": BlockSweeps(1e-4, 1000, RungeKutta(10.0, 0.25)),
    "Diffrax Tsit5, T = 100, tolerance 1e-3": AdaptiveRungeKutta(100.0, 1e-3, 1e-3),
    "Diffrax Tsit5, T = 100, tolerance 1e-6": AdaptiveRungeKutta(100.0, 1e-6, 1e-6),
    "morphax Runge-Kutta 4, T = 100, steps of 0.25": RungeKutta(100.0, 0.25),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (jax, diffrax, optax, torch, np))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}")
    task = phase_digits()
    data = (task.train_inputs, task.train_targets)
    network = PhaseOscillators.layered((64, 200, 10), key=KEY)
    one_iteration("untrained", network, data, 3 if quick else 7)
    rule = EquilibriumPropagation(relaxer=SWEEPS, strength=STRENGTH)
    trained = train(network, rule, data, optax.sgd(0.03), 100, key=KEY, batch_size=BATCH).last
    one_iteration("after 100 updates", trained, data, 3 if quick else 7)
    one_search(20 if quick else 100, 1000)


def one_iteration(title: str, network: PhaseOscillators, data: Any, repeats: int) -> None:
    inputs, targets = data[0][:BATCH], data[1][:BATCH]
    starts = jax.vmap(lambda k: network.initial_state(key=k))(jax.random.split(KEY, BATCH))
    calls: dict[str, Callable[[], Any]] = {}
    forces: dict[str, np.ndarray] = {}
    for name, relaxer in WAYS.items():
        rule = EquilibriumPropagation(relaxer=relaxer, strength=STRENGTH)
        step = eqx.filter_jit(lambda n, k, r=rule: r.gradient(n, inputs, targets, key=k))
        calls[name] = lambda s=step: jax.block_until_ready(s(network, KEY))
        forces[name] = left_by(network, relaxer, inputs, targets, starts)
    twin = Torch(network, inputs, targets, starts)
    goal = np.median(forces["morphax, sweeps to 1e-4"])
    for duration in (100, twin.duration_for(goal)):
        name = f"PyTorch Runge-Kutta 4, T = {duration}, steps of 0.25"
        calls[name] = lambda d=duration: twin.iteration(d)
        forces[name] = twin.left(duration)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        if "PyTorch" not in name:
            call()
    for repeat in range(repeats):
        for name, call in calls.items():
            if repeat == 0 or times[name][0] < 5000:
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    print(f"\nOne iteration, 64-200-10, {BATCH} images, {title}")
    print(f"{'':52s}{'median ms':>10s}{'ratio':>8s}{'least':>10s}   force left: median, largest")
    first = np.median(times["morphax, sweeps to 1e-4"])
    for name, found in times.items():
        rest = f"{np.median(forces[name]):10.1e}{forces[name].max():10.1e}"
        print(f"{name:52s}{np.median(found):10.1f}{np.median(found) / first:8.2f}{min(found):10.1f}{rest}")


def left_by(network: PhaseOscillators, relaxer: Relaxer, inputs: Any, targets: Any, starts: Any) -> np.ndarray:
    """The force left in the nudged state of every image."""

    @eqx.filter_jit
    def relaxed(network: PhaseOscillators) -> jax.Array:
        def one(drive: jax.Array, target: jax.Array, start: jax.Array) -> jax.Array:
            free = network.relax(drive, state=start, relaxer=relaxer)
            nudge = Nudge(phase_overlap, STRENGTH, target)
            return network.relax(drive, state=free.state, nudge=nudge, relaxer=relaxer).residual

        return jax.vmap(one)(inputs, targets, starts)

    return np.asarray(relaxed(network))


class Torch:
    """The layered network and its dynamics in plain PyTorch."""

    def __init__(self, network: PhaseOscillators, inputs: Any, targets: Any, starts: Any):
        def tensor(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values, np.float32))

        matrix = np.asarray(network.matrix)
        self.first, self.second = tensor(matrix[64:264, :64]), tensor(matrix[264:, 64:264])
        self.bias = tensor(network.bias_strengths), tensor(network.bias_phases)
        self.inputs, self.targets, self.starts = tensor(inputs), tensor(targets), tensor(starts)

    def force(self, phases: torch.Tensor, strength: float) -> torch.Tensor:
        cosine, sine = torch.cos(phases), torch.sin(phases)
        fields = []
        for function, wave in ((torch.cos, cosine), (torch.sin, sine)):
            inner, outer = wave[:, :200], wave[:, 200:]
            hidden = function(self.inputs) @ self.first.T + outer @ self.second
            fields.append(torch.cat([hidden, inner @ self.second.T], 1) + self.bias[0] * function(self.bias[1]))
        force = cosine * fields[1] - sine * fields[0]
        if strength:
            away = phases[:, 200:] - self.targets
            force[:, 200:] -= strength * torch.sin(away) / (1 + torch.cos(away) + 2e-6)
        return force

    def follow(self, phases: torch.Tensor, strength: float, duration: float, step: float = 0.25) -> torch.Tensor:
        for _ in range(round(duration / step)):
            one = self.force(phases, strength)
            two = self.force(phases + step / 2 * one, strength)
            three = self.force(phases + step / 2 * two, strength)
            four = self.force(phases + step * three, strength)
            phases = phases + step / 6 * (one + 2 * two + 2 * three + four)
        return phases

    def iteration(self, duration: float) -> tuple[torch.Tensor, ...]:
        """Free and nudged state, and the gradient with respect to couplings and biases."""
        with torch.inference_mode():
            free = self.follow(self.starts, 0.0, duration)
            nudged = self.follow(free, STRENGTH, duration)
            return tuple((b - a) / STRENGTH for a, b in zip(self.slopes(free), self.slopes(nudged), strict=True))

    def slopes(self, phases: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gradients = []
        for function in (torch.cos, torch.sin):
            wave, drive = function(phases), function(self.inputs)
            gradients.append((wave[:, :200].T @ drive, wave[:, 200:].T @ wave[:, :200]))
        (a, b), (c, d) = gradients
        strength, direction = self.bias
        away = phases - direction
        return -(a + c) / BATCH, -(b + d) / BATCH, -torch.cos(away).mean(0), -(strength * torch.sin(away)).mean(0)

    def left(self, duration: float) -> np.ndarray:
        with torch.inference_mode():
            free = self.follow(self.starts, 0.0, duration)
            return self.force(self.follow(free, STRENGTH, duration), STRENGTH).abs().amax(1).numpy()

    def duration_for(self, force: float, longest: int = 400) -> int:
        """The time, doubled from 100, after which the median force is at most this."""
        duration = 100
        while duration < longest and np.median(self.left(duration)) > force:
            duration *= 2
        return duration


def one_search(runs: int, iterations: int) -> None:
    task = xor()
    rule = EquilibriumPropagation(relaxer=BlockSweeps(1e-4, 500), strength=STRENGTH)
    descent = optax.sgd(0.1)

    def networks(key: jax.Array) -> PhaseOscillators:
        return make_members(
            lambda k: PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, bias_scale=0.5, key=k), key, runs
        )

    def call(key: jax.Array) -> float:
        start = time.perf_counter()
        trained = train(
            networks(key),
            rule,
            (task.train_inputs, task.train_targets),
            descent,
            iterations,
            key=key,
            ensemble=True,
            chunk=iterations,
        )
        assert np.isfinite(jnp.asarray(trained.history[-1]["loss"])).all()
        return time.perf_counter() - start

    first, second = call(jax.random.key(1)), call(jax.random.key(2))
    print(f"\nXOR, {runs} networks of 5 oscillators, {iterations} updates each, in one call:")
    print(f"{second:.1f} s ({first:.1f} s with compilation)")


if __name__ == "__main__":
    main()
