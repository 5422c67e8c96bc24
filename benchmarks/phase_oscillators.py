"""Coupled phase oscillators: one iteration of equilibrium propagation by sweeps and by following the dynamics.

    python benchmarks/phase_oscillators.py [--quick] [--threads 1] [--keep]

A layered network of 64-200-10 oscillators reads 300 digits: free relaxation, nudged relaxation, gradient; single
precision. First untrained, then after 100 updates. Contenders:

- morphax sweeping to a largest force of 1e-4, from the random state or after a prefix of the dynamics;
- the paper's way in the same library: adaptive Runge-Kutta of order 5(4) (Diffrax, Tsit5) to T = 100;
- PyTorch, plain: classical Runge-Kutta with fixed steps to T = 100, and to where its median force is that of the
  sweeps, or T = 400.

The force that is left is shown with each (median and largest over the images, nudged state): T = 100 is not rest. A
contender that takes more than 5 s is measured once. Then 222 oscillators, all coupled to all, by sweeps and by
accelerated descent, and XOR: 100 networks of 5 oscillators, 1000 steps each, in one call of `train`.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from measuring import Call, Report, arguments, side_by_side
from morphax import PhaseOscillators
from morphax.dynamics.relaxation import AcceleratedDescent, AdaptiveRungeKutta, BlockSweeps, Relaxer, RungeKutta
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import EquilibriumPropagation
from morphax.learning.train import train
from morphax.substrates.energy import Nudge, phase_overlap
from morphax.tasks import phase_digits, xor

BATCH, STRENGTH, KEY = 300, 0.1, jax.random.key(0)
SWEEPS, DESCENT = BlockSweeps(1e-4, 1000), AcceleratedDescent(1e-4)
DENSE_WAYS: dict[str, Relaxer] = {"accelerated descent": DESCENT, "sweeps": SWEEPS}
WAYS: dict[str, Relaxer] = {
    "morphax, sweeps to 1e-4": SWEEPS,
    "morphax, dynamics to T = 10, then sweeps": BlockSweeps(1e-4, 1000, RungeKutta(10.0, 0.25)),
    "Diffrax Tsit5, T = 100, tolerance 1e-3": AdaptiveRungeKutta(100.0, 1e-3, 1e-3),
    "Diffrax Tsit5, T = 100, tolerance 1e-6": AdaptiveRungeKutta(100.0, 1e-6, 1e-6),
    "morphax Runge-Kutta 4, T = 100, steps of 0.25": RungeKutta(100.0, 0.25),
}


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("phase-oscillators", options, "jax", "diffrax", "optax", "torch", "numpy")
    torch.set_num_threads(report.threads)
    task = phase_digits()
    data = (task.train_inputs, task.train_targets)
    network = PhaseOscillators.layered((64, 200, 10), key=KEY)
    repeats = 3 if options.quick else 7
    one_iteration(report, "untrained", network, data, repeats)
    rule = EquilibriumPropagation(relaxer=SWEEPS, strength=STRENGTH)
    trained = train(network, rule, data, optax.sgd(0.03), 100, key=KEY, batch_size=BATCH).last
    one_iteration(report, "trained", trained, data, repeats)
    all_to_all(report, data, repeats)
    one_search(report, 20 if options.quick else 100, 1000)
    report.finish()


def one_iteration(report: Report, name: str, network: PhaseOscillators, data: Any, repeats: int) -> None:
    inputs, targets = data[0][:BATCH], data[1][:BATCH]
    starts = jax.vmap(lambda k: network.initial_state(key=k))(jax.random.split(KEY, BATCH))
    calls: dict[str, Call] = {}
    forces: dict[str, np.ndarray] = {}
    for way, relaxer in WAYS.items():
        calls[way] = iteration(network, relaxer, inputs, targets)
        forces[way] = left_by(network, relaxer, inputs, targets, starts)
    twin = Torch(network, inputs, targets, starts)
    goal = np.median(forces["morphax, sweeps to 1e-4"])
    # Of the second the duration depends on the network, and its row has the same name in every table.
    for way, duration in (("T = 100", 100), ("to the force of sweeps, or T = 400", twin.duration_for(goal))):
        calls[f"PyTorch Runge-Kutta 4, {way}"] = lambda d=duration: twin.iteration(d)
        forces[f"PyTorch Runge-Kutta 4, {way}"] = twin.left(duration)
    times = side_by_side(calls, repeats, most=5.0)
    first = times["morphax, sweeps to 1e-4"].median
    rows = [
        [
            way,
            1e3 * found.median,
            found.median / first,
            f"{np.median(forces[way]):.0e}, {forces[way].max():.0e}",
        ]
        for way, found in times.items()
    ]
    header = ["", "ms", "ratio", "force left: median, largest"]
    report.table(name, f"One iteration, 64-200-10, {BATCH} images, {name}", header, rows)


def iteration(network: PhaseOscillators, relaxer: Relaxer, inputs: Any, targets: Any) -> Call:
    rule = EquilibriumPropagation(relaxer=relaxer, strength=STRENGTH)
    step = eqx.filter_jit(lambda n, k: rule.gradient(n, inputs, targets, key=k))
    return lambda: step(network, KEY)


def all_to_all(report: Report, data: Any, repeats: int) -> None:
    """An iteration of 222 oscillators, all coupled to all, by sweeps and by accelerated descent."""
    inputs, targets = data[0][:BATCH], data[1][:BATCH]
    network = PhaseOscillators.all_to_all(64, 148, 10, key=KEY)
    rule = EquilibriumPropagation(relaxer=DESCENT, strength=STRENGTH)
    trained = train(network, rule, data, optax.sgd(0.03), 60, key=KEY, batch_size=BATCH).last
    rows = []
    for state, substrate in (("untrained", network), ("after 60 updates", trained)):
        calls = {way: iteration(substrate, relaxer, inputs, targets) for way, relaxer in DENSE_WAYS.items()}
        times = side_by_side(calls, repeats)
        least = times["accelerated descent"].median
        rows += [[f"{way}, {state}", 1e3 * found.median, found.median / least] for way, found in times.items()]
    report.table(
        "all-to-all", f"One iteration, 222 oscillators all-to-all, {BATCH} images, to 1e-4", ["", "ms", "ratio"], rows
    )


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


def one_search(report: Report, runs: int, iterations: int) -> None:
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
    title = f"XOR, {runs} networks of 5 oscillators, {iterations} updates each, in one call"
    report.table("xor", title, ["", "s", "with compilation"], [[title, second, first]])


if __name__ == "__main__":
    main()
