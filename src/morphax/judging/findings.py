"""What is wrong with a recording, or must be known of it before its numbers mean anything."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from morphax.judging.polynomials import (
    Channel,
    Innovations,
    Polynomials,
    autocovariances,
    ljung_box,
    mean_and_deviation,
)
from morphax.judging.readings import Readings
from morphax.judging.recording import Recording
from morphax.judging.stimulus import ENOUGH, FEWEST

AHEAD = 50
"""Points by which an answer is looked for before its cause."""
DRIFT = 0.01
"""Share of a reading's variance in slow changes, over a quarter of the recording and longer, that is named."""
EQUAL = 1 - 1e-9
"""Readings whose correlation is larger in magnitude are one reading."""
LOOKED_AT = 20_000
"""Points from which it is taken for how long a reading persists."""
LONG = 200_000
"""Points of a long recording in which answers before their causes, holds, and the size of inputs are looked for."""
LAGS = 100
"""Over which inputs must be independent."""
CHANGES = 20
"""Of an input, at least, to tell whether each is held."""
SOON = 10
"""Points in which a device answers; where nothing comes so soon it is looked for later."""
LATE = 1000
"""Points by which an answer is looked for after its cause."""
SLOW = 1000
"""Parts of a recording whose means tell slow changes."""
UNLIKELY = 1e-4
"""A test is believed when what it saw is less probable than this by chance."""


class Finding(NamedTuple):
    """Something that a judgement of a recording must say.

    An "error" leaves nothing to judge; a "warning" changes what the numbers mean; a "note" says what was done.
    """

    severity: Literal["error", "warning", "note"]
    text: str


def findings(recording: Recording, washout: int = 200) -> list[Finding]:
    """What a recording has that makes numbers mean less, or something else: errors first.

    Looked for are inputs that do not vary, are held, or depend on their past; missing, constant, equal and drifting
    readings; too few points; and answers that come before their causes.

    **Arguments:** `washout`: points at the beginning in which readings may still settle.

        >>> import numpy as np
        >>> from morphax.judging import Recording, findings
        >>> u = np.random.default_rng(0).uniform(-1, 1, 1000)
        >>> for finding in findings(Recording(u, np.stack([np.roll(u, -1), np.ones(1000)], axis=1))):
        ...     print(finding.severity, finding.text)
        error readings answer the input 1 points before it comes; shift one against the other (shift=1)
        note x1 is constant and was left out
    """
    found = [*_of_inputs(recording), *_of_channels(recording), *_of_readings(recording, washout)]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _of_inputs(recording: Recording) -> Iterator[Finding]:
    for place, name in enumerate(recording.input_names):
        values = Channel(recording.inputs, place)
        if not mean_and_deviation(values)[1] > 0:
            yield Finding("error", f"the input {name} is {values[0:1][0]:g} all the time; nothing was asked")
            continue
        held = _held(values[0:LONG])
        if held > 1:
            text = f"the input {name} is held for {held} points each; keep one point of {held} (every={held})"
            yield Finding("error", text)
            continue
        correlated, rest = _independent(values)
        if correlated:
            text = f"the input {name} is correlated in time: what its past does not foretell was taken for the input"
            yield Finding("note", text)
        if rest is None:
            text = (
                f"the input {name} depends on what it was long before, or repeats itself; capacities may add up to "
                "more than there is. Apply independent numbers (`stimulus`)"
            )
            yield Finding("warning", text)
        elif ljung_box((rest[0:LONG] - mean_and_deviation(rest)[0]) ** 2) < UNLIKELY:
            text = (
                f"the size of the input {name} is foretold by its past; capacities may add up to more than there is. "
                "Apply independent numbers (`stimulus`)"
            )
            yield Finding("warning", text)


def _of_channels(recording: Recording) -> Iterator[Finding]:
    """Channels that tell of each other."""
    from scipy.stats import norm

    rows = np.asarray(recording.inputs[0:LONG], float)
    names = recording.input_names
    pairs = list(combinations(np.flatnonzero(rows.std(axis=0) > 0).tolist(), 2))
    level = norm.isf(UNLIKELY / max(4 * len(pairs), 1)) / len(rows) ** 0.5
    for one, other in pairs:
        first, second = (rows[:, place] - rows[:, place].mean() for place in (one, other))
        shares = [abs(np.corrcoef(first**power, second**power)[0, 1]) for power in (1, 2)]
        # The square of a coin is a constant, and has no correlation.
        if np.nanmax(shares) > level:
            text = (
                f"the inputs {names[one]} and {names[other]} depend on each other, and what they share counts twice. "
                "Apply independent numbers to each"
            )
            yield Finding("warning", text)


def _of_readings(recording: Recording, left_out: int) -> Iterator[Finding]:
    count = recording.responses.shape[1]
    points, washout = len(recording) - left_out, min(left_out, len(recording) // 4)
    if points < FEWEST * count:
        text = (
            f"{len(recording)} points, of which {left_out} are left out (washout), are too few for {count} readings; "
            f"{FEWEST * count + left_out} are the least"
        )
        yield Finding("error", text)
        return
    if missing := recording.missing():
        yield Finding("error", missing)
        return
    if len(recording) < ENOUGH * count:
        text = (
            f"{len(recording)} points for {count} readings tell capacities to some percent; {ENOUGH * count} tell them "
            "to 2 %"
        )
        yield Finding("warning", text)
    readings = Readings.of(recording.responses, washout)
    if not readings.rank:
        yield Finding("error", "no reading changes; there is nothing to judge")
        return
    varying = [recording.reading_names[place] for place in readings.kept]
    constant = [name for name in recording.reading_names if name not in varying]
    if constant:
        yield Finding("note", f"{_listed(constant)} constant and {'was' if len(constant) == 1 else 'were'} left out")
    for places in _equal(readings):
        text = f"{_listed([varying[place] for place in places])} one reading, up to a factor, and count once"
        yield Finding("note", text)
    shares = _drift(readings)
    worst = int(np.argmax(shares))
    if shares[worst] > max(DRIFT, 100 * _persistence(readings, worst) / points):
        text = (
            f"readings drift, over a quarter of the recording and longer ({100 * shares[worst]:.0f} % of the variance "
            f"of {varying[worst]}); take out what changes slowly (detrend={max(200, len(recording) // 20)})"
        )
        yield Finding("warning", text)
    if early := _early(recording, readings):
        yield Finding(
            "error",
            f"readings answer the input {early} points before it comes; shift one against the other (shift={early})",
        )
    elif late := _late(recording, readings):
        yield Finding(
            "warning",
            f"readings answer the input {late} points after it came, and nothing sooner; shift one against the other "
            f"(shift=-{late})",
        )


def _held(values: Float[np.ndarray, " time"]) -> int:
    """For how many points each input is held; 1 where it changes freely."""
    changes = np.flatnonzero(np.diff(values)) + 1
    # Of a few levels one may follow itself, but not so often by a multiple.
    return int(np.gcd.reduce(np.diff(changes))) if len(changes) > CHANGES else 1


def _independent(values: Channel) -> tuple[bool, Channel | Innovations | None]:
    """Whether inputs are correlated in time; and they, or their innovations, or nothing that is independent."""
    lags = min(LAGS, len(values) // 4)
    if ljung_box(values, lags) >= UNLIKELY:
        return False, values
    rest = Innovations.of(values)
    return True, rest if ljung_box(rest, lags) >= UNLIKELY else None


def _equal(readings: Readings) -> list[list[int]]:
    """Groups of readings that are one."""
    weighted = readings.axes * readings.variances
    alike = np.abs(weighted @ weighted.T) > EQUAL
    groups = {int(np.argmax(row)): np.flatnonzero(row).tolist() for row in alike}
    return [group for group in groups.values() if len(group) > 1]


def _persistence(readings: Readings, place: int) -> float:
    """For how many points a reading stays what it is, apart from slow changes."""
    rows = np.asarray(readings.source[readings.start : readings.start + LOOKED_AT], float)[:, readings.kept[place]]
    time = np.linspace(-1, 1, len(rows))
    rest = rows - np.polynomial.Polynomial.fit(time, rows, 4)(time)
    covariances = autocovariances(rest, min(LOOKED_AT // 10, len(rest) // 4))
    below = covariances < covariances[0] / np.e
    return float(np.argmax(below)) if below.any() else float(len(covariances))


def _drift(readings: Readings) -> Float[np.ndarray, " kept"]:
    """The share of polynomials of time, up to degree 4, in the variance of each reading."""
    edges = np.linspace(readings.start, readings.start + len(readings), min(SLOW, len(readings)) + 1).astype(int)
    pieces = list(pairwise(edges.tolist()))
    means = np.stack(
        [np.mean(np.asarray(readings.source[low:high], float)[:, readings.kept], axis=0) for low, high in pieces]
    )
    slow = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(means)), 4)[:, 1:]
    slow = np.linalg.qr(slow - slow.mean(axis=0))[0]
    return np.sum((slow.T @ ((means - readings.mean) / readings.deviation)) ** 2, axis=0) / len(means)


def _early(recording: Recording, readings: Readings) -> int:
    """By how many points answers come before their causes; 0 where they do not."""
    ahead = min(AHEAD, len(readings) // 4)
    stop = min(len(recording) - ahead, readings.start + LONG)
    found = _answered(recording, readings, readings.start, stop, range(1, ahead + 1))
    return max(found, default=0)


def _late(recording: Recording, readings: Readings) -> int:
    """After how many points the first answer comes; 0 where that is soon, or none is found."""
    last = min(LATE, len(readings) // 4)
    start = max(readings.start, last)
    stop = min(len(recording), start + LOOKED_AT)
    if _answered(recording, readings, start, stop, range(0, -SOON, -1)):
        return 0
    return -max(_answered(recording, readings, start, stop, range(-SOON, -last - 1, -1)), default=0)


def _answered(recording: Recording, readings: Readings, start: int, stop: int, shifts: range) -> list[int]:
    """By how many points readings tell inputs that come later than they, or earlier, or squares of these."""
    from scipy.stats import beta

    basis = readings.between(start, stop)
    basis = basis - basis.mean(axis=0)
    channels = [Channel(recording.inputs, place) for place in range(len(recording.input_names))]
    level = beta.isf(UNLIKELY / (2 * len(shifts) * len(channels)), readings.rank / 2, (len(basis) - readings.rank) / 2)
    found = []
    for values in (each for each in channels if mean_and_deviation(each)[1] > 0):
        _, rest = _independent(values)
        if rest is None:  # its past would be taken for a cause
            continue
        made = Polynomials.of(rest, 2)
        for shift in shifts:
            for target in made(rest[start + shift : stop + shift])[1:]:
                centred = target - target.mean()
                share = np.sum((basis.T @ centred) ** 2) / (len(basis) * np.sum(centred**2))
                # Twice as much as chance may give: a beginning is no cause yet.
                if share > 2 * level:
                    found.append(shift)
    return found


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]} are"
