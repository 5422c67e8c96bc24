"""What functions of its past inputs a device's readings hold: the information processing capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from morphax._checks import check_choice, check_count, check_range, cores
from morphax._lazy import xr
from morphax.judging.polynomials import Channel, Innovations, Polynomials, ljung_box, mean_and_deviation
from morphax.judging.products import Kind, Product, affordable, degree_of, kinds, shell, shortest, written
from morphax.judging.readings import ROWS, Readings, as_table

AT_ONCE = 128
"""Products that are made and projected at once: they stay in the cache."""
PASS = 256
"""Products that are worth a look at the whole recording, if there are so many."""
BLOCKS = 20
MOMENTS = 1 << 23
"""Numbers of moments that are held at once."""
KEPT = 1 << 23
"""Numbers of readings that are held instead of read anew."""
DEPENDENT = 1e-4
"""Inputs whose autocorrelation is less probable than this, were they independent, are replaced by their innovations."""
LAGS = 20
"""Over which they must be independent at least; over all delays where these are longer."""
CONFIDENCE = 0.95


def information_processing_capacity(
    inputs: Any,
    responses: Any,
    *,
    washout: int = 200,
    max_degree: int = 8,
    max_delay: int = 50,
    max_products: int = 5000,
    innovations: Literal["auto", "always", "never"] = "auto",
    p_value: float = 1e-4,
) -> xr.Dataset:
    r"""What functions of its past inputs the readings of a device hold, and how much of each.

    A target is a product of polynomials of past inputs, $y(t) = \prod_i p_{d_i}(u_{c_i}(t - \tau_i))$, which are
    orthonormal under the distribution that the inputs have. Its capacity is the share of its variance that a linear
    readout gives back, from 0 to 1, without the share that it would give back by chance (`Capacities`). Capacities of
    all products add up to the number of independent readings at most, and to that number where the readings are
    functions of fading past inputs and nothing else: what remains is noise, older than was tried, of a higher degree,
    or no function of the input.

    Products are tried in the order of their promise (`Search`); all that were tried count, so that the sum has no bias
    from choosing. Inputs that are correlated in time are replaced by what their past does not foretell
    (`Innovations`), which is unknown to the past, too.

    **Arguments:**

    - `inputs`: (time,), or (time, channels) of independent channels; any distribution.
    - `responses`: readings (time, readings), or a list of those of several devices that had the same inputs.

      Both may be anything that has a `shape` and gives NumPy arrays for slices of time: they are read in stretches.
    - `washout`: points at the beginning that are left out, >= `max_delay`.
    - `max_degree`: largest sum of degrees, >= 1. Of an input with L levels single degrees end at L - 1. Of many
      channels it is less: as far as there are no more than 10,000 kinds of products.
    - `max_delay`: longest delay, >= 0.
    - `max_products`: how many products may be tried, >= 1.
    - `innovations`: whether inputs are replaced by theirs: "auto" where they are correlated (Ljung-Box test, 1e-4).
    - `p_value`: how probable one false `significant` product may be in all, in (0, 1).

    **Returns:** a dataset over `product` (with `factors`, `total_degree` and `longest_delay`), `degree` and `delay`:
    `capacity`, `raw` and `chance` of products, which are `significant`; `by_degree` and `memory` (of single inputs, by
    delay; `linear_memory` is its sum); `total`, with standard error and 95 % interval from leaving out one of 20
    blocks of time after the other, and `rank`, which it should be compared with. Of several devices all have an axis
    `device`.

    **Raises:** `ValueError` for a value outside of these ranges, numbers that are not finite, an input that does not
    vary, or responses of another length.

    Source: Dambre, Verstraeten, Schrauwen & Massar, Scientific Reports 2, 514 (2012); the chance level and the
    intervals are ours.

        >>> import numpy as np
        >>> from morphax.judging import information_processing_capacity
        >>> u = np.random.default_rng(0).uniform(-1, 1, 5000)
        >>> delays = np.stack([np.roll(u, delay) for delay in (1, 2, 5)], axis=1)
        >>> found = information_processing_capacity(u, delays, max_degree=3, max_delay=10)
        >>> round(float(found.total)), found.memory.values.round(2)[:4].tolist()
        (3, [0.0, 1.0, 1.0, 0.0])
    """
    check_choice("innovations", innovations, ("auto", "always", "never"))
    check_range("p_value", p_value, low=0.0, high=1.0, open_low=True)
    for name, value, low in (
        ("max_degree", max_degree, 1),
        ("max_delay", max_delay, 0),
        ("max_products", max_products, 1),
    ):
        check_count(name, value, low)
    table = as_table("inputs", inputs)
    channels = [Channel(table, place) for place in range(table.shape[1])]
    for channel in channels:
        if not mean_and_deviation(channel)[1] > 0:
            raise ValueError(f"inputs of channel {channel.place} are all {channel[0:1][0]:g}; an input must vary")
    points = len(channels[0])
    check_count("washout", washout, max_delay, points - 1)
    several = isinstance(responses, list | tuple)
    devices = [each if hasattr(each, "shape") else np.asarray(each) for each in (responses if several else [responses])]
    for device in devices:
        if len(device.shape) != 2:
            raise ValueError(f"responses have shape {device.shape}; they must be (time, readings), or a list of such")
        if device.shape[0] != points:
            raise ValueError(f"responses have {device.shape[0]} points of time; inputs have {points}")
    used, note = _independent(channels, innovations, min(max(LAGS, max_delay), points - 1))
    readings = [Readings.of(device, washout) for device in devices]
    capacities = Capacities(used, readings, max_degree, max_delay)
    products, found = Search(capacities, max_products).run()
    dataset = _dataset(capacities, products, found, p_value).assign_attrs(input=note)
    return dataset if several else dataset.isel(device=0)


def _independent(channels: list[Channel], innovations: str, lags: int) -> tuple[Sequence[Channel | Innovations], str]:
    """Inputs, or their innovations where these are wanted, and a word about it."""
    correlated = [innovations != "never" and ljung_box(channel, lags) < DEPENDENT for channel in channels]
    if innovations == "never" or (innovations == "auto" and not any(correlated)):
        return channels, "as it is"
    return [Innovations.of(channel) for channel in channels], "innovations of order 5"


def _dataset(capacities: Capacities, products: list[Product], found: Found, p_value: float) -> xr.Dataset:
    from scipy.stats import beta

    degrees = np.array([sum(power for *_, power in factors) for factors in products])
    delays = np.array([max(delay for _, delay, _ in factors) for factors in products])
    ranks = np.array(capacities.ranks)
    points = len(capacities.readings[0])
    # A product that shares factors with what the readings hold has more by chance, and varies more.
    excess = np.maximum(1.0, found.chance * points / np.maximum(ranks, 1)[:, None])
    threshold = beta.isf(p_value / len(products), ranks / 2, (points - 1 - ranks) / 2)[:, None] * excess
    of_degree = [degrees == degree for degree in range(1, int(degrees.max()) + 1)]
    singles = [
        np.array([len(factors) == 1 and factors[0][1:] == (delay, 1) for factors in products])
        for delay in range(capacities.delay + 1)
    ]
    total, total_error, width = _summed(found, np.ones(len(products), bool))
    by_degree, degree_error, _ = zip(*(_summed(found, chosen) for chosen in of_degree), strict=True)
    memory, memory_error, _ = zip(*(_summed(found, chosen) for chosen in singles), strict=True)
    all_memory, all_memory_error, _ = _summed(found, np.any(singles, axis=0))
    unit = {"units": "1"}
    per_product = ("device", "product")
    return xr.Dataset(
        {
            "capacity": (per_product, found.capacity, unit | {"long_name": "capacity without what chance gives"}),
            "raw": (per_product, found.raw, unit | {"long_name": "share of variance that a readout gives back"}),
            "chance": (per_product, found.chance, unit | {"long_name": "share that it gives back by chance"}),
            "significant": (per_product, found.raw > threshold),
            "total": ("device", total, unit | {"long_name": "information processing capacity"}),
            "total_error": ("device", total_error, unit | {"long_name": "standard error of the capacity"}),
            "total_low": ("device", total - width, unit),
            "total_high": ("device", total + width, unit),
            "rank": ("device", ranks, unit | {"long_name": "independent readings"}),
            "by_degree": (("degree", "device"), np.array(by_degree), unit | {"long_name": "capacity"}),
            "by_degree_error": (("degree", "device"), np.array(degree_error), unit),
            "memory": (("delay", "device"), np.array(memory), unit | {"long_name": "linear memory"}),
            "memory_error": (("delay", "device"), np.array(memory_error), unit),
            "linear_memory": ("device", all_memory, unit | {"long_name": "linear memory, of all delays"}),
            "linear_memory_error": ("device", all_memory_error, unit),
        },
        {
            "factors": ("product", [written(factors, len(capacities.channels)) for factors in products]),
            "total_degree": ("product", degrees),
            "longest_delay": ("product", delays, {"units": "points"}),
            "degree": np.arange(1, len(of_degree) + 1),
            "delay": ("delay", np.arange(capacities.delay + 1), {"units": "points"}),
        },
    )


def _summed(found: Found, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum over some products, of each device; its standard error; half of its 95 % interval."""
    from scipy.stats import t

    total = found.capacity[:, chosen].sum(axis=1)
    without = found.without[:, :, chosen].sum(axis=2)
    spread = np.sum((without - without.mean(axis=1, keepdims=True)) ** 2, axis=1)
    error = np.sqrt((BLOCKS - 1) / BLOCKS * spread)
    return total, error, error * t.ppf((1 + CONFIDENCE) / 2, BLOCKS - 1)


class Found(NamedTuple):
    """Capacities of some products, of each device, and with one block of time left out."""

    raw: Float[np.ndarray, "devices products"]
    chance: Float[np.ndarray, "devices products"]
    capacity: Float[np.ndarray, "devices products"]
    without: Float[np.ndarray, "devices blocks products"]


class _Space(NamedTuple):
    """What the readings of some blocks span, less their mean: (rank, directions) that make it orthonormal."""

    points: float
    sums: Float[np.ndarray, " rank"]
    whitening: Float[np.ndarray, "rank directions"]

    @classmethod
    def of(cls, gram: Float[np.ndarray, "rank+1 rank+1"]) -> Self:
        """From sums of products of readings and of a one in front of them."""
        points, sums = float(gram[0, 0]), gram[0, 1:]
        values, vectors = np.linalg.eigh(gram[1:, 1:] - np.outer(sums, sums) / points)
        # Directions that are missing outside of the block that is left out: none, unless readings vary there alone.
        kept = values > 1e-6 * points
        return cls(points, sums, vectors[:, kept] / np.sqrt(values[kept]))

    def capacity(
        self, total: np.ndarray, projected: np.ndarray, squares: np.ndarray, levers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share of products, what chance gives, and the share without it."""
        inside = (projected - np.outer(total, self.sums) / self.points) @ self.whitening
        raw = np.einsum("pd,pd->p", inside, inside) / (squares - total**2 / self.points)
        chance = levers / squares / self.points
        return raw, chance, (raw - chance) / (1 - chance)


class Capacities:
    r"""Capacities of products of orthonormal polynomials, from one recording of each of some devices.

    $$C[y] = \frac{|Q^T y|^2}{T |y|^2}, \qquad H[y] = \frac{\sum_t h_t y_t^2}{\sum_t y_t^2}, \qquad
      \hat C = \frac{C - H}{1 - H}$$

    for a target $y_t = \prod_i p_{d_i}(u_{c_i}(t - \tau_i))$, less its mean. $C$ is the share of its variance that a
    linear readout gives back, $H$ what it would give back by chance: of a product that shares factors with what the
    readings hold that is more than the number of readings over that of points. $\hat C$ is without bias.

    The devices have the same input, and their targets are made once.
    """

    def __init__(
        self, channels: Sequence[Channel | Innovations], readings: Sequence[Readings], degree: int, delay: int
    ):
        self.channels = channels
        self.readings = readings
        self.degree = degree
        self.delay = delay
        self.polynomials = [Polynomials.of(channel, degree) for channel in channels]
        start = readings[0].start
        edges = np.linspace(start, len(channels[0]), BLOCKS + 1).astype(int)
        self.blocks = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        self.ranks = [each.rank for each in readings]
        self._kept: dict[int, np.ndarray] = {}
        self._grams = [np.zeros((BLOCKS, rank + 1, rank + 1)) for rank in self.ranks]
        self._in_threads(self._add_to_grams)
        self._spaces = [[_Space.of(gram.sum(axis=0) - left) for left in (0.0, *gram)] for gram in self._grams]

    def of(self, products: Sequence[Product]) -> Found:
        """Capacities of products."""
        most = max(AT_ONCE, MOMENTS // (BLOCKS * (sum(self.ranks) + len(self.ranks) + 2)))
        parts = [self._of(products[low : low + most]) for low in range(0, len(products), most)]
        return Found(*(np.concatenate(each, axis=-1) for each in zip(*parts, strict=True)))

    def _of(self, products: Sequence[Product]) -> Found:
        sums = np.zeros((BLOCKS, len(products), 1 + sum(self.ranks)))
        squares = np.zeros((BLOCKS, len(products), 1 + len(self.ranks)))
        self._in_threads(lambda block: self._add(products, block, sums[block], squares[block]))
        edges = np.cumsum([1, *self.ranks])
        found = [
            self._judged(spaces, sums[:, :, 0], sums[:, :, low:high], squares[:, :, 0], squares[:, :, 1 + place])
            for place, (spaces, low, high) in enumerate(zip(self._spaces, edges[:-1], edges[1:], strict=True))
        ]
        return Found(*(np.stack(each) for each in zip(*found, strict=True)))

    def _in_threads(self, work: Callable[[int], None]) -> None:
        """Work at every block, in as many threads as there are cores: libraries' own would wait for each other."""
        with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
            list(pool.map(work, range(BLOCKS)))

    def _add_to_grams(self, block: int) -> None:
        for low, high in self._stretches(block):
            for gram, rows in zip(self._grams, self._rows(low, high), strict=True):
                extended = np.concatenate([np.ones((len(rows), 1), np.float32), rows], axis=1)
                gram[block] += extended.T @ extended

    def _add(self, products: Sequence[Product], block: int, sums: np.ndarray, squares: np.ndarray) -> None:
        """Sums over a block, of products times readings, and of their squares times leverages."""
        for low, high in self._stretches(block):
            rows = self._rows(low, high)
            ones = np.ones((high - low, 1), np.float32)
            basis = np.concatenate([ones, *rows], axis=1)
            weights = np.concatenate([ones, *(np.sum(q**2, axis=1, keepdims=True) for q in rows)], axis=1)
            table = self._table(low, high)
            made = np.empty((AT_ONCE, high - low), np.float32)
            for first in range(0, len(products), AT_ONCE):
                some = products[first : first + AT_ONCE]
                for target, factors in zip(made, some, strict=False):
                    self._make(factors, table, target)
                targets = made[: len(some)]
                sums[first : first + len(some)] += targets @ basis
                targets *= targets
                squares[first : first + len(some)] += targets @ weights

    def _judged(
        self,
        spaces: Sequence[_Space],
        total: np.ndarray,
        projected: np.ndarray,
        squares: np.ndarray,
        levers: np.ndarray,
    ) -> Found:
        """Of one device, from sums over blocks: (blocks, products) and, projected, (blocks, products, rank)."""
        parts = total, projected, squares, levers
        sums = [each.sum(axis=0) for each in parts]
        whole, *less = spaces
        left = [
            less[block].capacity(*(both - each[block] for both, each in zip(sums, parts, strict=True)))[2]
            for block in range(BLOCKS)
        ]
        return Found(*whole.capacity(*sums), np.stack(left))

    def _stretches(self, block: int) -> Iterator[tuple[int, int]]:
        low, high = self.blocks[block]
        for first in range(low, high, ROWS):
            yield first, min(first + ROWS, high)

    def _rows(self, low: int, high: int) -> list[np.ndarray]:
        if low not in self._kept:
            rows = [each.between(low, high) for each in self.readings]
            if sum(each.size for each in list(self._kept.values())) + sum(each.size for each in rows) > KEPT:
                return rows
            self._kept[low] = np.concatenate(rows, axis=1)
        edges = np.cumsum(self.ranks)[:-1]
        return np.split(self._kept[low], edges, axis=1)

    def _table(self, low: int, high: int) -> list[np.ndarray]:
        """Polynomials of every channel (degrees, delay + time) from the longest delay before on."""
        pairs = zip(self.channels, self.polynomials, strict=True)
        return [made(channel[low - self.delay : high]).astype(np.float32) for channel, made in pairs]

    def _make(self, factors: Product, table: list[np.ndarray], target: np.ndarray) -> None:
        first, *others = [
            table[channel][degree, self.delay - delay : self.delay - delay + len(target)]
            for channel, delay, degree in factors
        ]
        if not others:
            target[:] = first
            return
        np.multiply(first, others[0], out=target)
        for other in others[1:]:
            target *= other


class _Shell(NamedTuple):
    kind: Kind
    longest: int
    products: list[Product]
    gain: float
    """Mean capacity of a product, over devices too."""
    error: float
    """Its standard deviation where there is nothing to be found."""


class Search:
    """Looks for the products that readings hold, as many as may be tried, the most promising first.

    All single polynomials up to the longest delay come first, and simple products up to a few delays, since what a
    device holds may begin late; then the first products of every kind; then, again and again, the next longer delay of
    those kinds whose last ones were worth most. A kind is left when its last two shells held no more than chance.
    """

    EARLY = 12
    """Delays to which simple products of several factors are tried whatever they hold."""
    SIMPLE = 6
    """Degree and number of factors together: pairs up to degree 4, and triples of single inputs."""
    ALIVE = 3.0
    """Standard deviations by which a shell must lie above chance to be followed."""

    def __init__(self, capacities: Capacities, most: int):
        self.capacities = capacities
        self.left = most
        self.shells: dict[Kind, list[_Shell]] = {}
        self.products: list[Product] = []
        self.found: list[Found] = []

    def run(self) -> tuple[list[Product], Found]:
        """Products in the order in which they were tried, and what they are worth."""
        levels = [each.degree for each in self.capacities.polynomials]
        every = kinds(levels, affordable(levels, self.capacities.degree))
        singles = [kind for kind in every if len(kind) == 1]
        simple = [kind for kind in every if len(kind) > 1 and degree_of(kind) + len(kind) <= self.SIMPLE]
        self._try([(kind, longest) for longest in range(self.capacities.delay + 1) for kind in singles])
        early = range(min(self.EARLY, self.capacities.delay) + 1)
        self._try([(kind, longest) for longest in early for kind in simple])
        self._try([(kind, shortest(kind) + more) for more in range(2) for kind in every if kind not in self.shells])
        while self.left and (wanted := self._next()):
            self._try(wanted)
        return self.products, Found(*(np.concatenate(each, axis=-1) for each in zip(*self.found, strict=True)))

    def _next(self) -> list[tuple[Kind, int]]:
        """The next shells, enough of them for a look at the whole recording."""
        alive = {kind: gain for kind in self.shells if (gain := self._promise(kind)) > 0}
        chosen, count = [], 0
        for kind in sorted(alive, key=lambda kind: -alive[kind]):
            chosen.append((kind, self.shells[kind][-1].longest + 1))
            count += len(self.shells[kind][-1].products)
            if count >= PASS:
                break
        return chosen

    def _promise(self, kind: Kind) -> float:
        """What a product of the next shell may be worth; 0 where the last ones were chance, or there is none."""
        last = self.shells[kind][-2:]
        if last[-1].longest >= self.capacities.delay:
            return 0.0
        gain = sum(each.gain * len(each.products) for each in last)
        error = sum((each.error * len(each.products)) ** 2 for each in last) ** 0.5
        return max(each.gain for each in last) if gain > self.ALIVE * error else 0.0

    def _try(self, wanted: list[tuple[Kind, int]]) -> None:
        shells = []
        for kind, longest in wanted:
            if longest > self.capacities.delay or not self.left:
                continue
            products = list(shell(kind, longest))[: self.left]
            if products:
                self.left -= len(products)
                shells.append((kind, longest, products))
        every = [each for _, _, products in shells for each in products]
        if not every:
            return
        found = self.capacities.of(every)
        self.products += every
        self.found.append(found)
        points, ranks = len(self.capacities.channels[0]), np.array(self.capacities.ranks)
        chance = float(np.mean(2.0 * ranks)) ** 0.5 / points / len(ranks) ** 0.5
        place = 0
        for kind, longest, products in shells:
            gain = float(np.mean(found.capacity[:, place : place + len(products)]))
            self.shells.setdefault(kind, []).append(
                _Shell(kind, longest, products, gain, chance / len(products) ** 0.5)
            )
            place += len(products)
