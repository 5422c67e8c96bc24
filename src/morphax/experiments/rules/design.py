"""Does it pay to see the noise when a reservoir is designed?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.experiments.training import falling_adam
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BaseConfig, Claim, Count, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.design import readout_error
from morphax.learning.ensemble import member_keys
from morphax.learning.evolution import CMAES
from morphax.learning.readout import answer, fit_readout, read_task
from morphax.learning.rule import LearningRule, Metrics
from morphax.learning.train import DivergedError, adjustable, train
from morphax.pytrees import DEVICE, SETTING, select
from morphax.substrates.base import evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.base import Task
from morphax.tasks.waveforms import waveforms
from morphax.units import MHz, ns, us

PERIOD = 8  # points, also of the washout
EXACT = 1e12  # shots that leave nothing but rounding to be seen

Loss = Literal["exact", "expected", "counted"]


class Arm(NamedTuple):
    """An optimiser, and what it sees."""

    optimiser: Literal["Adam", "CMA-ES"]
    loss: Loss


ARMS = {
    "Adam, exact populations": Arm("Adam", "exact"),
    "Adam, expected error with shots": Arm("Adam", "expected"),
    "CMA-ES, exact populations": Arm("CMA-ES", "exact"),
    "CMA-ES, expected error with shots": Arm("CMA-ES", "expected"),
    "CMA-ES, counted shots": Arm("CMA-ES", "counted"),
}
BLIND, TOLD, CMA_BLIND, CMA_TOLD, CMA_COUNTED = ARMS
COLOURS = dict(zip(ARMS, (RED, ORANGE, VIOLET, GREEN, BLUE), strict=True))


class MixerNumbers(eqx.Module):
    """Two modes with four numbers: logarithms of coupling, both dissipations (rad/us) and drive (sqrt(rad/us))."""

    logarithms: Float[Array, "*stack 4"] = eqx.field(metadata=DEVICE)
    interval: float = eqx.field(static=True)
    measured: int = eqx.field(static=True)

    def substrate(self, shots: Array | None = None) -> JosephsonMixer:
        """The mixer, whose populations are counted in so many shots; None: exact."""
        coupling, first, second, drive = jnp.exp(self.logarithms)
        return JosephsonMixer(
            coupling / us,
            jnp.stack([first, second]) / us,
            drive / us**0.5,
            interval=self.interval,
            measured=self.measured,
            shots=shots,
        )


class FittedReadout(LearningRule):
    """Squared error of a readout that is fitted anew to what a design shows of a stream.

    As it is to be expected with so many shots (`readout_error`), which has a gradient, or of populations that are
    counted, which has none.
    """

    shots: Float[Array, ""] = eqx.field(metadata=SETTING)
    washout: int = eqx.field(static=True)
    counted: bool = eqx.field(static=True)

    def needs(self) -> str:
        """A design."""
        return "a design with a method substrate(shots)"

    def fits(self, substrate: Any) -> bool:
        """Whatever makes a substrate."""
        return callable(getattr(substrate, "substrate", None))

    def metrics(self, substrate: MixerNumbers, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """The error."""
        targets = targets[self.washout :]
        features, _ = evolve(substrate.substrate(self.shots if self.counted else None), inputs, key=key)
        features = features[self.washout :]
        if self.counted:
            readout = fit_readout(features, targets, ridge=0.0)
            return {"loss": jnp.mean((features @ readout.weights.T + readout.bias - targets) ** 2)}
        return {"loss": readout_error(features, targets, self.shots)}

    def gradient(
        self, substrate: MixerNumbers, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, MixerNumbers]:
        """The error, and its derivative with respect to the numbers of the device."""
        numbers, rest = select(substrate, "device")

        def loss(numbers: MixerNumbers) -> tuple[Array, Metrics]:
            metrics = self.metrics(eqx.combine(numbers, rest), inputs, targets, key=key)
            return metrics["loss"], metrics

        gradient, metrics = jax.grad(loss, has_aux=True)(numbers)
        return metrics | self.cost(len(inputs)).reported(), gradient


def error(arm: str, reading: str = "counted") -> Any:
    """Mean test error over seeds."""
    return lambda d: float(d.error.sel(arm=arm, reading=reading).mean())


class Design(Experiment):
    """Ours: four numbers of a mixer found by CMA-ES that counts shots, and by a gradient that is blind to shot noise.

    Coupling, both dissipations and the drive are trained from random starts; the readout is fitted anew to every
    candidate. All arms judge as many candidates; a gradient counts as one. Three losses - of exact populations, as
    expected with so many shots, of counted ones - tell blindness from local minima: who is blind ends low without shots
    and high with them, who is caught ends high in what it sees. Learning rates of Adam and first spreads of CMA-ES are
    chosen by the mean validation error with shots, which favours the blind ones.
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "random starts, each with sequences and shots of its own", ge=1, extent=True)
        coupling: float = parameter(2.0, "conversion rate g / 2 pi around which starts are drawn", unit="MHz", gt=0)
        damping_rate: tuple[Positive, Positive] = parameter(
            (17.0, 21.0), "dissipation of each mode around which starts are drawn", unit="rad/us"
        )
        drive_amplitude: float = parameter(
            2.77, "drive amplitude around which starts are drawn", unit="sqrt(rad/us)", gt=0
        )
        scatter: float = parameter(1.0, "standard deviation of the logarithms of starts", ge=0)
        interval: float = parameter(100.0, "how long an input is held", unit="ns", gt=0)
        measured: int = parameter(16, "measured states", ge=1, le=64)
        train_points: int = parameter(400, "points that readouts are fitted to", ge=32, multiple_of=PERIOD)
        validation_points: int = parameter(400, "points that rates are chosen by", ge=16, multiple_of=PERIOD)
        test_points: int = parameter(1000, "points of the test", ge=16, multiple_of=PERIOD)
        shots: Count = parameter(1000, "measurement shots per reading")
        evaluations: int = parameter(320, "candidates that are judged, or gradients, of every arm", ge=4)
        population: int = parameter(8, "candidates of a generation of CMA-ES", ge=4)
        learning_rates: tuple[Positive, ...] = parameter(
            (0.01, 0.03, 0.1, 0.3), "first steps of Adam that are tried, falling as a cosine", min_length=1
        )
        spreads: tuple[Positive, ...] = parameter(
            (0.03, 0.1, 0.3, 1.0), "first spreads of CMA-ES that are tried", min_length=1
        )

        @model_validator(mode="after")
        def _whole_generations(self) -> Self:
            if self.evaluations % self.population:
                raise ValueError(
                    f"evaluations is {self.evaluations}; it must be a multiple of population, {self.population}"
                )
            return self

        def tried(self, arm: Arm) -> tuple[float, ...]:
            """Learning rates, or spreads."""
            return self.learning_rates if arm.optimiser == "Adam" else self.spreads

    name = "rules/design"
    quick = {
        "seeds": 2,
        "train_points": 160,
        "validation_points": 160,
        "test_points": 400,
        "evaluations": 64,
        "learning_rates": (0.03, 0.1),
        "spreads": (0.3,),
    }
    claims = (
        Claim.at_most(
            "mixer, 1,000 shots: CMA-ES ends below Adam on the noiseless gradient (squared errors)",
            error(BLIND),
            error(CMA_COUNTED),
            source="Adam on exact populations, same run; means",
        ),
        *(
            Claim.reported(f"{arm}: test error {with_shots}", error(arm, reading), source="ours")
            for arm in ARMS
            for reading, with_shots in (("exact", "without shots"), ("counted", "with shots"))
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        seeds = Blocks("seed", config.seeds, together=False)
        work: dict[str, Callable[[range], xr.Dataset]] = {
            name: partial(_tried, config, name, key, progress) for name, arm in ARMS.items()
        }
        work["start"] = partial(_started, config, key)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        dataset = along("arm", {name: _chosen(parts[name]) for name in ARMS}, join="outer", coords="minimal")
        for name in ("rate", "validation_error", "every_error"):
            # Some try fewer rates, and who diverged has no error.
            dataset[name].attrs["may_be_missing"] = 1
        return dataset.assign(start_error=parts["start"].error)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 4.4)
        ends, rates = figure.subplots(1, 2)
        for name, colour in COLOURS.items():
            part = dataset.sel(arm=name)
            ends.plot(*part.error.sel(reading=["exact", "counted"]).transpose("reading", "seed"), "o", color=colour)
            mean = part.validation_error.mean("seed", skipna=False)
            rates.plot(part.rate, mean, "o-" if name.startswith("CMA") else "s--", color=colour, label=name)
        start = dataset.start_error
        ends.plot(start.sel(reading="exact"), start.sel(reading="counted"), "x", color=GREY, label="starts")
        ends.set(xscale="log", yscale="log", xlabel="test error, exact populations", ylabel="test error, counted shots")
        ends.set_title("where all seeds end")
        rates.set(xscale="log", yscale="log", xlabel="learning rate, or first spread of CMA-ES")
        tried = np.unique(dataset.rate.values[np.isfinite(dataset.rate.values)])
        rates.set_xticks(tried, [f"{rate:g}" for rate in tried])
        rates.set_xticks([], minor=True)
        rates.set(ylabel="validation error, counted shots", title=f"mean of {dataset.sizes['seed']} seeds")
        lines = [*rates.get_lines(), *ends.get_lines()[-1:]]
        figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize="small")
        return {"design": figure}


class _Given(NamedTuple):
    """What a seed begins with, the same for all arms."""

    start: MixerNumbers
    task: Task
    train_key: PRNGKeyArray
    read_key: PRNGKeyArray


def _given(config: Design.Config, key: PRNGKeyArray, seeds: range) -> _Given:
    (seed_key,) = member_keys(key, seeds)
    start_key, task_key, train_key, read_key = jax.random.split(seed_key, 4)
    middle = jnp.log(jnp.array([config.coupling * MHz * us, *config.damping_rate, config.drive_amplitude]))
    start = middle + config.scatter * jax.random.normal(start_key, (4,))
    later = config.validation_points + config.test_points
    task = waveforms(config.train_points, later, washout=PERIOD, key=task_key)
    return _Given(MixerNumbers(start, config.interval * ns, config.measured), task, train_key, read_key)


def _tried(config: Design.Config, name: str, key: PRNGKeyArray, progress: Progress, seeds: range) -> xr.Dataset:
    """An arm of one seed: the device that each rate ends with, judged without and with shots."""
    arm = ARMS[name]
    given, tried = _given(config, key, seeds), config.tried(arm)
    data = (given.task.train_inputs, given.task.train_targets)
    shots = jnp.asarray(config.shots, float)
    # A number, so that two losses share one compilation.
    seen = jnp.full_like(shots, EXACT) if arm.loss == "exact" else shots
    rule = FittedReadout(seen, PERIOD, arm.loss == "counted")
    if arm.optimiser == "Adam":
        trained = [
            _descended(config, f"{name}, seed {seeds.start}, rate {rate:g}", rule, data, given, rate, progress)
            for rate in tried
        ]
    else:
        # The spreads are members of an ensemble.
        stack, each = jax.tree.map(lambda x: jnp.stack([x] * len(tried)), (given.start, rule))
        strategy = CMAES(each, population=config.population, spread=jnp.array(tried))
        steps = config.evaluations // config.population
        options: Any = {"key": given.train_key, "trained": ("device",), "chunk": steps, "ensemble": True}
        options["on_chunk"] = partial(progress.record, f"{name}, seed {seeds.start}")
        last = train(stack, strategy, data, optax.sgd(1.0), steps, **options).last
        trained = [jax.tree.map(lambda x, index=index: x[index], last) for index in range(len(tried))]
    errors = np.array([_errors(config, given, shots, design) for design in trained])
    names = ("coupling", "first dissipation", "second dissipation", "drive")
    return xr.Dataset(
        {
            "rate": ("trial", list(tried), {"units": "1", "long_name": "learning rate, or first spread"}),
            "validation_error": (("seed", "trial"), errors[None, :, 1, 0], {"units": "1", "may_be_missing": 1}),
            "every_error": (
                ("seed", "trial", "reading"),
                errors[None, :, :, 1],
                {"units": "1", "long_name": "test error of every rate", "may_be_missing": 1},
            ),
            "numbers": (
                ("seed", "trial", "number"),
                np.exp([[np.asarray(design.logarithms) for design in trained]]),
                {"units": "rad/us, drive: sqrt(rad/us)"},
            ),
        },
        {
            "seed": list(seeds),
            "trial": np.arange(len(tried)),
            "reading": ["exact", "counted"],
            "number": list(names),
        },
    )


def _started(config: Design.Config, key: PRNGKeyArray, seeds: range) -> xr.Dataset:
    """The device at the start of one seed."""
    given = _given(config, key, seeds)
    errors = np.array(_errors(config, given, jnp.asarray(config.shots, float), given.start))
    return xr.Dataset(
        {"error": (("seed", "reading"), errors[None, :, 1], {"units": "1"})},
        {"seed": list(seeds), "reading": ["exact", "counted"]},
    )


def _descended(
    config: Design.Config, label: str, rule: FittedReadout, data: Any, given: _Given, rate: float, progress: Progress
) -> MixerNumbers:
    """By Adam; NaN where it diverged."""
    descent = adjustable(falling_adam(config.evaluations), learning_rate=rate)
    options: Any = {"key": given.train_key, "trained": ("device",), "chunk": config.evaluations}
    options["on_chunk"] = partial(progress.record, label)
    try:
        return train(given.start, rule, data, descent, config.evaluations, **options).last
    except DivergedError:
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), given.start)


def _errors(config: Design.Config, given: _Given, shots: Array, design: MixerNumbers) -> list[tuple[float, float]]:
    """Validation and test error, without and with shots."""
    if not np.isfinite(design.logarithms).all():
        return [(np.nan, np.nan)] * 2
    read = [_read(design, given.task, number, config.validation_points, given.read_key) for number in (None, shots)]
    return [(float(validation), float(test)) for validation, test in read]


@eqx.filter_jit
def _read(design: MixerNumbers, task: Task, shots: Array | None, first: int, key: PRNGKeyArray) -> tuple[Array, Array]:
    """A readout is fitted anew; errors of the first points behind the training, and of the rest."""
    reading = read_task(design.substrate(shots), task, key=key)
    away = jnp.square(answer(reading, task, ridge=0.0)[0] - task.test_targets)
    return jnp.mean(away[:first]), jnp.mean(away[first:])


def _chosen(arm: xr.Dataset) -> xr.Dataset:
    """With the errors of the rate that validates best, on the mean of all seeds."""
    best = int(np.argmin(arm.validation_error.mean("seed", skipna=False).fillna(np.inf).values))
    chosen = arm.every_error.isel(trial=best, drop=True)
    error = chosen.assign_attrs(units="1", long_name="squared test error of the chosen rate")
    numbers = arm.numbers.isel(trial=best, drop=True)
    return arm.assign(error=error, numbers=numbers, chosen_rate=arm.rate.isel(trial=best, drop=True))
