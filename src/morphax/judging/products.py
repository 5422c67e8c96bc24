"""Products of polynomials of past inputs, by kind and longest delay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np

Product = tuple[tuple[int, int, int], ...]
"""The factors of a target: channel, delay and degree of each."""
Kind = tuple[tuple[int, int], ...]
"""What products have in common that differ in delays: channel and degree of each factor, in order."""
KINDS = 10_000
"""Kinds of products that are looked at."""


def affordable(levels: Sequence[int], degree: int) -> int:
    """The largest degree, up to this one, of which there are not too many kinds to look at: of many channels 2 or 3."""
    ways = np.zeros(degree + 1)
    ways[0] = 1
    # Every variable may be taken any number of times: channels, and powers of each.
    for power in (power for most in levels for power in range(1, most + 1)):
        for total in range(power, degree + 1):
            ways[total] += ways[total - power]
    return max(int(np.sum(np.cumsum(ways[1:]) <= KINDS)), 1)


def kinds(levels: Sequence[int], degree: int) -> list[Kind]:
    """All kinds of products up to a total degree, lower degrees and fewer factors first.

    `levels` is the highest degree of each channel.
    """
    variables = [(channel, power) for channel, most in enumerate(levels) for power in range(1, most + 1)]

    def extended(kind: Kind, left: int, place: int) -> Iterator[Kind]:
        if kind:
            yield kind
        for next_place in range(place, len(variables)):
            if variables[next_place][1] <= left:
                yield from extended((*kind, variables[next_place]), left - variables[next_place][1], next_place)

    return sorted(extended((), degree, 0), key=lambda kind: (degree_of(kind), len(kind), kind))


def shell(kind: Kind, longest: int) -> Iterator[Product]:
    """All products of a kind whose longest delay is this one: every factor has a variable of its own."""
    groups = list(Counter(kind).items())
    for chosen in product(*(combinations(range(longest + 1), many) for _, many in groups)):
        if max(each[-1] for each in chosen) < longest:
            continue
        factors = tuple(
            (channel, delay, power)
            for ((channel, power), _), delays in zip(groups, chosen, strict=True)
            for delay in delays
        )
        if len({(channel, delay) for channel, delay, _ in factors}) == len(factors):
            yield factors


def degree_of(kind: Kind) -> int:
    return sum(power for _, power in kind)


def shortest(kind: Kind) -> int:
    """The longest delay that a product of a kind has at least."""
    return max(Counter(channel for channel, _ in kind).values()) - 1


def written(factors: Product, channels: int) -> str:
    """ "P1(u[t-3]) P2(u[t])": factors as people write them, with the channel where there are several."""
    return " ".join(
        f"P{power}(u{channel if channels > 1 else ''}[t{f'-{delay}' if delay else ''}])"
        for channel, delay, power in sorted(factors, key=lambda factor: (factor[1], factor[0], factor[2]))
    )
