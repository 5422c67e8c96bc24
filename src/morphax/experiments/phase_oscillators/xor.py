"""Can coupled phase oscillators learn XOR?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._claims import (
    best_size,
    early,
    ends,
    gained,
    lost,
    moved_away,
    saved,
    speed,
    straightness,
)
from morphax.experiments.phase_oscillators._training import EquilibriumConfig, optimiser
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.experiment import LARGEST, Claim, Count, Experiment, parameter
from morphax.lab.figures import BLUE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import EquilibriumPropagation
from morphax.learning.history import History
from morphax.learning.rule import Metrics
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.energy import phase_distance
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import xor

LEARNED = 1e-2  # mean distance below which a run counts as converged
NEAR = 0.1  # and below which it counts as near


def distance(outputs: Array, targets: Array) -> Metrics:
    """The paper's mean distance, Eq. 3."""
    return {"distance": jnp.mean(jnp.sum(phase_distance(outputs, targets), axis=-1))}


class Xor(Experiment):
    """Fig. 3: learning XOR by equilibrium propagation: convergence, size, multistability, initial states.

    All runs of a size go through one compiled program.
    """

    class Config(EquilibriumConfig):
        seeds: int = parameter(100, "training runs at each size, Figs. 3b, d, e", ge=1, extent=True)
        many: int = parameter(1000, "training runs of the smallest network, Fig. 3a", ge=1, extent=True)
        iterations: int = parameter(1000, "updates", ge=300)
        sizes: tuple[Annotated[int, Field(ge=4, le=LARGEST)], ...] = parameter(
            (5, 6, 8, 10, 15, 20, 30), "oscillators, Fig. 3b", min_length=1
        )
        starts: tuple[Count, ...] = parameter(
            (1, 2, 5, 10, 20), "initial states for each example, Fig. 3d", min_length=1
        )
        start_sizes: tuple[Annotated[int, Field(ge=4, le=LARGEST)], ...] = parameter(
            (5, 10, 20), "oscillators, Fig. 3d", min_length=1
        )
        large: int = parameter(30, "oscillators whose equilibria are followed, Fig. 3c", ge=4)
        large_iterations: int = parameter(2000, "updates of them", ge=1)
        visits: int = parameter(40, "updates at which the equilibria are looked for", ge=2)
        searches: int = parameter(100, "initial states to look for equilibria with", ge=2)

        def memory(self) -> float:
            # All-to-all: couplings of every network, some ten times (weights, gradients, and the sweeps' blocks), and
            # those of the followed one at every update.
            of_seeds = self.seeds * max(*self.sizes, *self.start_sizes) ** 2
            many = self.many * self.sizes[0] ** 2
            return self.bytes_of_number * (10.0 * max(of_seeds, many) + self.large_iterations * self.large**2 / 2)

    name = "phase-oscillators/xor"
    quick = {
        "seeds": 10,
        "many": 20,
        "iterations": 300,
        "sizes": (5, 8),
        "starts": (1, 4),
        "start_sizes": (8,),
        "large": 8,
        "large_iterations": 200,
        "visits": 5,
        "searches": 20,
    }
    paper = WANG
    claims = (
        Claim.at_most(
            "5 oscillators: mean distance at the end, of the untrained one",
            0.1,
            lambda d: ends(d.many),
            source='Fig. 3a: "almost always converges to 0"; ours: the number',
            item="xor learned",
        ),
        Claim.at_least(
            "5 oscillators: share of runs whose mean distance ends below 0.01",
            0.95,
            lambda d: (d.many.isel(iteration=slice(-20, None)).mean("iteration") < LEARNED).mean(),
            source='Fig. 3a: "almost always"; ours: the number',
            item="xor learned",
        ),
        Claim.at_least(
            "a larger network learns faster than 5 oscillators: best size",
            6,
            lambda d: best_size(d),
            source="Fig. 3b: fastest at 8",
            item="xor size",
        ),
        Claim.reported("fastest size", lambda d: best_size(d), source="Fig. 3b", paper=8, item="xor size"),
        Claim.at_most(
            "30 oscillators learn more slowly than 8 (speed in decades per 100 iterations)",
            lambda d: 100 * speed(d.by_size).sel(size=8),
            lambda d: 100 * speed(d.by_size).sel(size=30),
            source="Fig. 3b",
            item="xor size",
        ),
        Claim.at_least(
            "multistable while the output is unique: hidden spread against output spread at the end (rad)",
            lambda d: d.output_spread.isel(visit=-1).max(),
            lambda d: d.hidden_spread.isel(visit=-1).max(),
            source="Fig. 3c",
            item="xor equilibria",
        ),
        Claim.at_most(
            "spread of the output over equilibria at the end (rad)",
            0.1,
            lambda d: d.output_spread.isel(visit=-1).max(),
            source="Fig. 3c: a deterministic function of the input; ours: 0.1 rad",
            item="xor equilibria",
            cause="2,000 updates are not enough for every network: of ten, five were there after 2,113 and nine after "
            "4,000 (phase-oscillators/xor, large_iterations=4000)",
        ),
        Claim.at_least(
            "some equilibria move away: largest rise of an input's worst distance between two looks",
            NEAR,
            moved_away,
            source="Sec. II B; ours: the number",
            item="moving equilibria",
        ),
        Claim.at_least(
            "some stable ones are lost: how many fewer an input has at the end, at most",
            1,
            lost,
            source="Sec. II B: may become unstable; here lost, in whatever way",
            item="moving equilibria",
        ),
        Claim.at_least(
            "more initial states speed learning up, largest network: speed with 20 against one",
            lambda d: d.speed.isel(size_d=-1).sel(starts=1),
            lambda d: d.speed.isel(size_d=-1).sel(starts=20),
            source="Fig. 3d, e",
            item="xor starts",
        ),
        Claim.at_most(
            "and saturate: what the last 10 of 20 gain over what the first 10 gain, largest network",
            0.5,
            lambda d: gained(d, 10, 20) / gained(d, 1, 10),
            source="Fig. 3d, e; ours: the number",
            item="xor starts",
        ),
        Claim.at_most(
            "less so with 5 oscillators: speed with 20 states over that with one, against the largest network",
            lambda d: (d.speed.sel(starts=20) / d.speed.sel(starts=1)).isel(size_d=-1),
            lambda d: (d.speed.sel(starts=20) / d.speed.sel(starts=1)).sel(size_d=5),
            source="Fig. 3d: not obvious for 5",
            item="xor five units",
        ),
        Claim.at_least(
            "early decay is exponential: least R^2 of a straight line through log10 of 300 iterations",
            0.9,
            lambda d: min(straightness(curve) for curve in early(d)),
            source="Sec. III A; ours: the number",
            item="xor exponential",
        ),
        Claim.at_most(
            "speed per relaxation is highest at few initial states (at most 5)",
            5,
            lambda d: (d.speed / d.starts).isel(size_d=-1).idxmax("starts"),
            source="Fig. 3e; ours: 5",
            item="xor physical speed",
        ),
        *(
            Claim.at_least(
                f"{size} oscillators: some initial states save time: speed per relaxation, best of several against one",
                *saved(size),
                source="Sec. III A; one state of this run",
                tolerance=-1e-9,
                item="xor physical speed",
                cause="two states would have to double the speed: they raise it 1.2, 1.6 and 1.6 times with 5, 10 and "
                "20 oscillators, where twenty raise it 1.2, 1.7 and 3.0 times (phase-oscillators/xor)",
            )
            for size in (5, 10, 20)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        keys = jax.random.split(key, 4)

        def many(runs: range) -> xr.Dataset:
            return xr.Dataset({"distance": _distances(config, config.sizes[0], 1, runs, keys[0])})

        def sizes(runs: range) -> xr.Dataset:
            def of_size(n: int) -> xr.Dataset:
                return xr.Dataset({"by_size": _distances(config, n, 1, runs, jax.random.fold_in(keys[1], n))})

            def of_starts(n: int, m: int) -> xr.Dataset:
                return xr.Dataset({"by_starts": _distances(config, n, m, runs, jax.random.fold_in(keys[2], n))})

            rows = {n: along("starts", {m: of_starts(n, m) for m in config.starts}) for n in config.start_sizes}
            return along("size", {n: of_size(n) for n in config.sizes}).merge(along("size_d", rows))

        work: dict[str, Callable[[], xr.Dataset]] = {"equilibria": partial(_followed, config, keys[3])}
        work |= Blocks("run", config.many, 100).split({"many": many})
        work |= Blocks("run", config.seeds, 2).split({"sizes": sizes})
        parts = join_blocks("run", progress.pieces(work))
        by_starts = parts["sizes"].by_starts
        dataset = parts["equilibria"].assign(
            many=parts["many"].distance.rename(run="run_a"),
            by_size=parts["sizes"].by_size,
            by_starts=by_starts.mean("run"),
            speed=speed(by_starts),
        )
        for name in ("many", "by_size", "by_starts"):
            dataset[name].attrs = {"units": "1", "long_name": "mean distance, Eq. 3"}
        dataset.speed.attrs = {"units": "1", "long_name": "decades of the mean distance per iteration"}
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        from matplotlib import colormaps

        figure = new_figure(11, 7)
        axes = figure.subplots(2, 3)
        a, b, d, e, f, c = axes.ravel()
        logs = np.log10(np.maximum(dataset.many.values, 1e-8))
        edges = np.linspace(-7, 0.5, 60)
        density = np.stack([np.histogram(row, edges)[0] for row in logs], axis=1)
        shade = np.log1p(density)
        a.pcolormesh(np.arange(shade.shape[1] + 1), edges, shade, cmap="viridis", rasterized=True)
        a.plot(np.log10(dataset.many.mean("run_a")), color="white")
        a.set(xlabel="iteration", ylabel="log10 mean distance", title=f"3a: {dataset.sizes['run_a']} runs")
        for n, colour in zip(
            dataset.size.values, colormaps["viridis"](np.linspace(0, 0.95, len(dataset.size))), strict=True
        ):
            b.semilogy(dataset.by_size.sel(size=n).mean("run"), color=colour, label=f"{n}")
        b.set(xlabel="iteration", ylabel="mean distance", title="3b: number of oscillators")
        b.legend(fontsize="x-small", ncols=2)
        large = dataset.by_starts.isel(size_d=-1)
        for m, colour in zip(
            dataset.starts.values, colormaps["viridis"](np.linspace(0, 0.95, len(large.starts))), strict=True
        ):
            d.semilogy(large.sel(starts=m), color=colour, label=f"{m}")
        d.set(xlabel="iteration", title=f"3d: initial states, {int(dataset.size_d[-1])} oscillators")
        d.legend(fontsize="x-small")
        for n in dataset.size_d.values:
            line = 100 * dataset.speed.sel(size_d=n)
            e.plot(dataset.starts, line, "o-", label=f"{n} oscillators")
            f.plot(dataset.starts, line / dataset.starts, "o-", label=f"{n} oscillators")
        e.set(xlabel="initial states", ylabel="decades / 100 iterations", title="3e: speed of learning")
        f.set(xlabel="initial states", title="3e: speed per relaxation")
        e.legend(fontsize="x-small")
        for example, colour in zip(range(4), (BLUE, RED, "tab:orange", "tab:green"), strict=True):
            for visit in range(dataset.sizes["visit"]):
                point = dataset.isel(visit=visit, example=example)
                place = np.full(point.sizes["search"], float(point.visit))
                c.plot(place, point.output, ".", color=colour, markersize=2)
                c.plot(place, point.hidden + 2 * np.pi, ".", color=colour, markersize=2)
        c.set(xlabel="iteration", title="3c: equilibria, four inputs")
        c.set_yticks([-np.pi / 2, np.pi / 2, 2 * np.pi], ["output: false", "true", "hidden unit: 0"])
        return {"xor": figure}


class _Recorded(EquilibriumPropagation):
    """Equilibrium propagation that keeps the weights of every step among its metrics."""

    def gradient(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
        weights, _ = ravel_pytree(select(substrate, "weight")[0])
        return metrics | {"weights": weights}, gradient


def xor_network(size: int, key: PRNGKeyArray) -> PhaseOscillators:
    return PhaseOscillators.all_to_all(2, size - 3, 1, coupling_deviation=1.0, bias_scale=0.5, key=key)


def trained_on_xor(
    config: EquilibriumConfig, networks: PhaseOscillators, rule: EquilibriumPropagation, iterations: int, **options: Any
) -> History:
    """Of a training that takes seconds, or less: nothing is kept on the way."""
    task, descent = xor(), optimiser("sgd", config.learning_rate, iterations)
    data = (task.train_inputs, task.train_targets)
    return train(networks, rule, data, descent, iterations, chunk=iterations, **options).history


def courses(history: History, runs: range) -> xr.Dataset:
    """How some runs of XOR went: mean distances, whether they learned, how soon, and what did not come to rest."""
    course = np.asarray(history.metric("distance"), float)
    # The last iteration at which a run is not near yet.
    far = np.where(course >= NEAR, 1 + np.arange(len(course))[:, None], 0).max(0)
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "course": (("iteration", "run"), course, unit | {"long_name": "mean distance, Eq. 3"}),
            "learned": ("run", course[-20:].mean(0) < LEARNED, unit),
            "iterations": ("run", far, unit | {"long_name": "iterations until the distance stays below 0.1"}),
            "unconverged": ("run", np.asarray(history.metric("unconverged"), float).mean(0), unit),
        },
        {"iteration": 1 + np.arange(len(course)), "run": list(runs)},
    )


def _distances(config: Xor.Config, size: int, starts: int, runs: range, key: PRNGKeyArray) -> Any:
    """Mean distances in the course of many trainings."""
    make_key, train_key = jax.random.split(key)
    networks, rule = (
        make_members(partial(xor_network, size), make_key, runs),
        config.rule(distance, initial_states=starts),
    )
    history = trained_on_xor(config, networks, rule, config.iterations, key=train_key, ensemble=runs)
    return ("iteration", "run"), history.metric("distance")


def _followed(config: Xor.Config, key: PRNGKeyArray) -> xr.Dataset:
    """Equilibria of one large network at some iterations of its training."""
    make_key, train_key, search_key = jax.random.split(key, 3)
    network, drives = xor_network(config.large, make_key), xor().train_inputs
    history = trained_on_xor(
        config, network, config.rule(distance, kind=_Recorded), config.large_iterations, key=train_key
    )
    weights, rest = select(network, "weight")
    _, back = ravel_pytree(weights)
    visits = np.unique(np.geomspace(1, config.large_iterations, config.visits).astype(int) - 1)
    keys = jax.random.split(search_key, config.searches)

    @eqx.filter_jit
    def search(numbers: Array) -> tuple[Array, Array, Array]:
        there = eqx.combine(back(numbers), rest)

        def one(drive: Array, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
            ended = there.relax(drive, relaxer=config.relaxer(), key=key)
            return there.observe(ended.state)[0], ended.state[0], ended.converged

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(drives, keys)

    found = [search(jnp.asarray(numbers)) for numbers in history.metric("weights")[visits]]
    output, hidden, converged = (np.stack([np.asarray(part[i], float) for part in found]) for i in range(3))
    return xr.Dataset(
        {
            "output": (("visit", "example", "search"), output, {"units": "rad"}),
            "hidden": (("visit", "example", "search"), hidden, {"units": "rad"}),
            "output_spread": (("visit", "example"), _spread(output, converged), {"units": "rad"}),
            "hidden_spread": (("visit", "example"), _spread(hidden, converged), {"units": "rad"}),
            "large_distance": ("large_iteration", history.metric("distance"), {"units": "1"}),
        },
        {"visit": visits + 1},
    )


def _spread(phases: np.ndarray, converged: np.ndarray) -> np.ndarray:
    """Circular standard deviation over the equilibria that were found."""
    length = np.abs(np.sum(converged * np.exp(1j * phases), axis=-1)) / np.maximum(converged.sum(-1), 1)
    return np.sqrt(-2 * np.log(np.clip(length, 1e-12, 1)))
