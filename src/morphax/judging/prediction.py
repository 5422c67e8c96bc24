"""Chaos, foretold by a device that is fed its own predictions, until it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_range
from morphax._lazy import xr
from morphax.files import note_file
from morphax.judging.standard import OFFSETS
from morphax.judging.stimulus import Span
from morphax.learning.readout import thin_svd
from morphax.substrates.base import State, Substrate, evolve, stepped
from morphax.tasks.chaos import lorenz_series, mackey_glass_series

POINTS_PER_TIME = 75
"""Of a Mackey-Glass series, in a Lyapunov time."""
WARM_UP = 45
"""Points at the beginning that enter no fit: 0.6 Lyapunov times."""
TIMES = 10
"""Lyapunov times on which a readout is fitted, and as many that it foretells."""
STARTS = 30
SHIFT = POINTS_PER_TIME / 2
"""Points between two starts."""
SERIES = {
    17: (197, 0.7206597),
    18: (138, 0.7744313),
    19: (315, 0.7783468),
    20: (131, 0.9225991),
    21: (191, 0.9479431),
    22: (119, 0.5455960),
    23: (106, 0.8622247),
    24: (97, 0.3259660),
    25: (98, 0.8297825),
    26: (104, 1.0033490),
    27: (112, 0.6491406),
    28: (119, 1.0957495),
    29: (131, 0.9256179),
    30: (139, 0.2713639),
}
"""NeuroBench's series: delay -> Lyapunov time, and the constant before the first point."""
LEADERBOARD = {"LSTM": 13.37, "echo state": 14.79}
"""sMAPE over all series and starts, as NeuroBench reports them."""
LORENZ_EXPONENT = 0.9056
"""Largest Lyapunov exponent at the usual parameters (Viswanath 1998)."""
LORENZ_INTERVAL = 0.02
TIMES_OF_LORENZ = 40
"""Lyapunov times that are foretold: longer than any solver keeps to its own solution."""
LOST = 0.4
"""A prediction is lost when it is off by more than this share of the series' standard deviation."""
SCALES = (0.3, 1.0)
HELD = 0.5
"""Share of the training points that is foretold to choose: after 2 Lyapunov times many look well that are unstable."""
RIDGES = (1e-10, 1e-8, 1e-6, 1e-4)


def smape(predicted: Float[Array, "*batch time"], true: Float[Array, "*batch time"]) -> Float[Array, "*batch"]:
    r"""Symmetric mean absolute percentage error, from 0 to 200.

    $$\frac{200}{T} \sum_t \frac{|\hat x_t - x_t|}{|\hat x_t| + |x_t|}$$

        >>> import jax.numpy as jnp
        >>> from morphax.judging.prediction import smape
        >>> float(smape(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        50.0
    """
    return 200 * jnp.mean(jnp.abs(predicted - true) / (jnp.abs(predicted) + jnp.abs(true)), axis=-1)


def valid_time(
    predicted: Float[Array, "*batch time"], true: Float[Array, "*batch time"], deviation: float | Array
) -> Array:
    """Points until a prediction is off by more than 0.4 of the series' standard deviation.

    >>> import jax.numpy as jnp
    >>> from morphax.judging.prediction import valid_time
    >>> int(valid_time(jnp.array([1.0, 1.1, 2.0, 1.0]), jnp.ones(4), 1.0))
    2
    """
    lost = jnp.abs(predicted - true) > LOST * deviation
    return jnp.where(jnp.any(lost, axis=-1), jnp.argmax(lost, axis=-1), predicted.shape[-1])


class Foretold(NamedTuple):
    """What a device foretells: predictions (starts, time), what came, and what was chosen, per start."""

    predicted: np.ndarray
    true: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    ridge: np.ndarray


def foretell(
    substrate: Substrate,
    series: Float[np.ndarray, "starts time"],
    test_points: int,
    *,
    washout: int = WARM_UP,
    low: float = -1.0,
    high: float = 1.0,
    noise: float = 0.0,
    scales: Sequence[float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
    ridges: Sequence[float] = RIDGES,
    held: float = 0.2,
    key: PRNGKeyArray,
) -> Foretold:
    """Fit a readout that foretells the next point of a series, and let it go on by itself.

    The device is driven with the series; the readout sees its readings, the last point and a constant. From the end of
    the training points on it is driven with what it foretold. Inputs are the series, by its training points brought
    into [`low`, `high`] as by `solve`; a prediction beyond this range is held at its end, as by a converter. Scale,
    offset and ridge are those that foretell the end of the training points best.

    **Arguments:**

    - `substrate`: takes one number an input, and can be held between two inputs: no device outside.
    - `series`: one a row, training points and then `test_points`.
    - `noise`: on every reading, in units of its deviation.
    - `held`: how large a share of the training points that end is. It must be long enough to show whether the device
      that is fed its own predictions is stable.

    **Raises:** `ValueError` for a device that answers whole sequences only, or too few points.

        >>> import jax, numpy as np
        >>> from morphax import EchoStateNetwork
        >>> from morphax.judging.prediction import foretell
        >>> wave = np.sin(0.3 * np.arange(400))[None]
        >>> network = EchoStateNetwork.random(20, key=jax.random.key(0))
        >>> told = foretell(network, wave, 100, key=jax.random.key(1))
        >>> bool(np.abs(told.predicted - told.true).max() < 0.01)
        True
    """
    if not substrate.differentiable:
        raise ValueError(
            f"substrate is a {type(substrate).__name__}, which answers whole sequences; what foretells by itself must "
            "be held between two inputs"
        )
    check_range("noise", noise, low=0.0)
    check_count("test_points", test_points, 1, series.shape[1] - 2)
    trained = series.shape[1] - test_points
    check_range("high", high, low=low, open_low=True)
    rows, strengths = jnp.asarray(series, float), jnp.array(ridges, float)
    span = Span(jnp.asarray(low, float), jnp.asarray(high, float))
    amount = jnp.asarray(noise, float)
    keys = jax.random.split(key, len(rows))
    pairs = [(scale, offset) for scale in scales for offset in offsets]
    scale, offset = (jnp.array(each, float) for each in zip(*pairs, strict=True))
    check_range("held", held, low=0.0, high=0.8, open_low=True)
    fitted = trained - max(round(held * trained), 1)
    check_count("washout", washout, 0, fitted // 2)
    tried = _tried(substrate, span, amount, rows[:, :trained], fitted, washout, scale, offset, strengths, keys)
    # (starts, pairs, ridges); what leaves all bounds is not chosen.
    wrong = np.mean(np.abs(np.asarray(tried) - np.asarray(rows)[:, None, None, fitted:trained]), axis=-1)
    places = [np.unravel_index(int(np.argmin(each)), each.shape) for each in np.nan_to_num(wrong, nan=np.inf)]
    picked = [(*pairs[int(pair)], ridges[int(ridge)]) for pair, ridge in places]
    chosen = [np.array(each) for each in zip(*picked, strict=True)]
    scale, offset, ridge = (jnp.asarray(each, float) for each in chosen)
    told = _told(substrate, span, amount, rows, trained, washout, scale, offset, ridge, keys)
    return Foretold(np.asarray(told), np.asarray(rows)[:, trained:], *chosen)


@eqx.filter_jit
def _tried(
    substrate: Substrate,
    span: Span,
    noise: Array,
    rows: Float[Array, "starts time"],
    fitted: int,
    washout: int,
    scales: Float[Array, " pairs"],
    offsets: Float[Array, " pairs"],
    ridges: Float[Array, " ridges"],
    keys: PRNGKeyArray,
) -> Float[Array, "starts pairs ridges test"]:
    def tried(row: Array, key: Array) -> Array:
        def one(scale: Array, offset: Array) -> Array:
            return _of_one(substrate, span, noise, row, fitted, washout, scale, offset, ridges, key)

        return jax.vmap(one)(scales, offsets)

    return jax.vmap(tried)(rows, keys)


@eqx.filter_jit
def _told(
    substrate: Substrate,
    span: Span,
    noise: Array,
    rows: Float[Array, "starts time"],
    fitted: int,
    washout: int,
    scales: Float[Array, " starts"],
    offsets: Float[Array, " starts"],
    ridges: Float[Array, " starts"],
    keys: PRNGKeyArray,
) -> Float[Array, "starts test"]:
    def told(row: Array, scale: Array, offset: Array, ridge: Array, key: Array) -> Array:
        return _of_one(substrate, span, noise, row, fitted, washout, scale, offset, ridge[None], key)[0]

    return jax.vmap(told)(rows, scales, offsets, ridges, keys)


def _of_one(
    substrate: Substrate,
    span: Span,
    noise: Array,
    row: Float[Array, " time"],
    fitted: int,
    washout: int,
    scale: Array,
    offset: Array,
    ridges: Float[Array, " ridges"],
    key: PRNGKeyArray,
) -> Float[Array, "ridges test"]:
    """Predictions from `fitted` points on, with readouts of several ridges."""
    drive_key, meter, run_key = jax.random.split(key, 3)
    least, most = jnp.min(row[:fitted]), jnp.max(row[:fitted])

    def into(value: Array) -> Array:
        return span.into((2 * value - least - most) / jnp.maximum(most - least, 1e-12), scale, offset)

    drives = into(row[:fitted])
    read, state = evolve(substrate, drives, key=drive_key)
    mean, deviation = jnp.mean(read[washout:], axis=0), jnp.std(read[washout:], axis=0)
    size = jnp.where(deviation > 0, deviation, 1.0)

    def features(read: Array, drive: Array, key: Array) -> Array:
        noisy = (read - mean) / size + noise * jax.random.normal(key, read.shape, read.dtype)
        unit = (drive[..., None] - span.middle) / span.half
        return jnp.concatenate([noisy, unit, jnp.ones((*drive.shape, 1), read.dtype)], axis=-1)

    seen = features(read, drives, meter)[washout:-1]
    u, singular, v = thin_svd(seen)
    strengths = ridges[:, None] * jnp.sum(singular**2) / seen.shape[1]
    kept = singular / (singular**2 + strengths)
    weights = jnp.einsum("nk,rk,tk,t->rn", v.T, kept, u, row[washout + 1 : fitted])
    step = substrate.stepper()

    def run(weights: Array) -> Array:
        def advance(carry: tuple[Array, Array, State], key: Array) -> tuple[tuple[Array, Array, State], Array]:
            read, drive, state = carry
            read_key, step_key, observe_key = jax.random.split(key, 3)
            told = features(read, drive, read_key) @ weights
            drive = into(told)
            state = stepped(step, state, drive, key=step_key)
            return (substrate.observe(state, key=observe_key), drive, state), told

        start = (read[-1], drives[-1], state)
        return jax.lax.scan(advance, start, jax.random.split(run_key, row.shape[0] - fitted))[1]

    return jax.vmap(run)(weights)


def foretell_mackey_glass(
    substrate: Substrate,
    taus: Sequence[int] = tuple(SERIES),
    starts: int = STARTS,
    *,
    low: float = -1.0,
    high: float = 1.0,
    noise: float = 0.0,
    folder: str | Path | None = None,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """NeuroBench's chaotic function prediction: sMAPE of 10 Lyapunov times that a device foretells by itself.

    14 Mackey-Glass series, 75 points a Lyapunov time, 30 starts each, half a Lyapunov time apart; 10 Lyapunov times to
    fit a readout on, of which the first 0.6 are left out, and 10 that are foretold.

    **Arguments:**

    - `taus`: delays, of `SERIES`.
    - `starts`: how many, <= 30.
    - `folder`: with NeuroBench's files, mg_17.npy and so on. None: the series are integrated here, from the same
      constants; chaos makes another solver's series another one after some Lyapunov times.

    **Returns:** a dataset over `tau` and `start` with `smape`, that of the training points' mean (`smape_constant`),
    `valid_time` in Lyapunov times, and the chosen `scale`, `offset` and `ridge`; its attribute `series` says whose
    they are.

    **Raises:** `ValueError` for other delays, and files that are not there or too short.

    Source: Yik et al., "NeuroBench: a framework for benchmarking neuromorphic computing", Nat. Commun. 16, 1545 (2025).
    """
    check_count("starts", starts, 1, STARTS)
    for tau in taus:
        check_choice("taus", tau, tuple(SERIES))
    points = 2 * TIMES * POINTS_PER_TIME
    names = ("smape", "smape_constant", "valid_time", "scale", "offset", "ridge")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for tau in taus:
        length = points + int(SHIFT * (starts - 1))
        series = mackey_glass_of(tau, length) if folder is None else _read_series(folder, tau, length)
        rows = np.stack([series[int(SHIFT * start) : int(SHIFT * start) + points] for start in range(starts)])
        own = jax.random.fold_in(key, tau)
        told = foretell(substrate, rows, points // 2, low=low, high=high, noise=noise, held=HELD, key=own)
        constant = np.broadcast_to(rows[:, : points // 2].mean(axis=1, keepdims=True), told.true.shape)
        for name, predicted in (("smape", told.predicted), ("smape_constant", constant)):
            columns[name].append(np.asarray(smape(jnp.asarray(predicted), jnp.asarray(told.true))))
        points_valid = valid_time(jnp.asarray(told.predicted), jnp.asarray(told.true), series.std())
        columns["valid_time"].append(np.asarray(points_valid) / POINTS_PER_TIME)
        for name in ("scale", "offset", "ridge"):
            columns[name].append(getattr(told, name))
    units = {"smape": "%", "smape_constant": "%", "valid_time": "Lyapunov times"}
    return xr.Dataset(
        {name: (("tau", "start"), np.array(rows), {"units": units.get(name, "1")}) for name, rows in columns.items()},
        {"tau": ("tau", list(taus), {"units": "1"}), "start": np.arange(starts)},
        {"series": "integrated here" if folder is None else "NeuroBench's"},
    )


def mackey_glass_of(tau: int, points: int) -> Float[np.ndarray, " points"]:
    """A series of NeuroBench: 75 points a Lyapunov time, from a constant before the first point on."""
    from scipy.interpolate import CubicSpline

    time, history = SERIES[tau]
    interval, step = time / POINTS_PER_TIME, 0.05
    with jax.enable_x64(True):
        steps = int(np.ceil(points * interval / step)) + 2
        numbers = (jnp.asarray(value, float) for value in (history, step, 0.2, 0.1))
        fine = np.asarray(mackey_glass_series(*numbers, lag=round(tau / step), length=steps))
    return CubicSpline(step * np.arange(steps), fine)(interval * np.arange(points))


def series_file(folder: str | Path, tau: int) -> Path:
    """NeuroBench's file of a series, which must be there."""
    path = Path(folder) / f"mg_{tau}.npy"
    if not path.is_file():
        raise ValueError(f"folder {str(folder)!r} holds no {path.name}")
    return path


def _read_series(folder: str | Path, tau: int, points: int) -> Float[np.ndarray, " points"]:
    path = series_file(folder, tau)
    note_file(path)
    series = np.ravel(np.load(path, allow_pickle=False))
    if len(series) < points:
        raise ValueError(f"{path} holds {len(series)} points; {points} are needed")
    return series[:points]


def foretell_lorenz(
    substrate: Substrate,
    starts: int = 10,
    *,
    train_points: int = 2000,
    low: float = -1.0,
    high: float = 1.0,
    noise: float = 0.0,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """For how many Lyapunov times a device foretells x of the Lorenz system from x alone.

    **Returns:** a dataset over `start` with `valid_time`, and `solver`: for how long the integration itself keeps to
    that of half its step, which no prediction can be held to beyond.
    """
    check_count("starts", starts, 1)
    check_count("train_points", train_points, 200)
    test_points = round(TIMES_OF_LORENZ / LORENZ_EXPONENT / LORENZ_INTERVAL)
    start_key, run_key = jax.random.split(key)
    begins = jnp.array([0.0, 0.0, 25.0]) + 5 * jax.random.normal(start_key, (starts, 3))

    def follow(begins: Array, points: int, steps: int) -> Array:
        """States at `points` intervals of so many steps each, from each beginning on."""
        numbers = [jnp.asarray(value, float) for value in (LORENZ_INTERVAL / steps, 10.0, 28.0, 8 / 3)]
        length = steps * (points - 1) + 1
        return jax.vmap(lambda begin: lorenz_series(begin, *numbers, length=length))(begins)[:, ::steps]

    states = follow(follow(begins, 2500, 2)[:, -1], train_points + test_points, 2)
    # The finer solution begins anew where the prediction does.
    finer = np.asarray(follow(states[:, train_points], test_points, 4)[:, :, 0])
    series = np.asarray(states[:, :, 0])
    told = foretell(substrate, series, test_points, low=low, high=high, noise=noise, key=run_key)
    deviation, interval = series.std(), LORENZ_EXPONENT * LORENZ_INTERVAL
    times = {
        name: interval * np.asarray(valid_time(jnp.asarray(other), jnp.asarray(told.true), deviation))
        for name, other in (("valid_time", told.predicted), ("solver", finer))
    }
    return xr.Dataset(
        {name: ("start", values, {"units": "Lyapunov times"}) for name, values in times.items()},
        {"start": np.arange(starts)},
    )


FREE_RUNNING = {"Mackey-Glass, free running": foretell_mackey_glass, "Lorenz, free running": foretell_lorenz}
"""What a device foretells by itself."""
