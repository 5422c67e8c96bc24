"""Who is coupled to whom in a network of symmetric couplings, and in which order its units can be swept."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from morphax._checks import check_count

PLACES = np.int32  # one type of index whatever the precision of the numbers
CHUNKS = 20  # into which units that are coupled to each other are cut for their sweeps, at most
FEW_RUNS = 8  # places that follow each other, taken as slices


class Topology:
    """Who is coupled to whom, which oscillators are clamped, and which are read. Immutable, hashable.

    **Arguments:**

    - `units`: number of oscillators, >= 2.
    - `edges`: pairs of different units, shape (couplings, 2). A pair of inputs is left out: both are clamped.
    - `inputs`, `outputs`: units that are clamped, and that are read; no unit is both.

    **Raises:** `ValueError` for units out of range, given twice, or both input and output; an edge from a unit to
    itself, or given twice.

        >>> from morphax.substrates.topology import Topology
        >>> chain = Topology(3, [(0, 1), (1, 2)], inputs=[0], outputs=[2])
        >>> chain.free.tolist(), len(chain.edges)
        ([1, 2], 2)
    """

    def __init__(
        self, units: int, edges: ArrayLike | Sequence[tuple[int, int]], *, inputs: Sequence[int], outputs: Sequence[int]
    ):
        check_count("units", units, 2)
        self.units = int(units)
        self.inputs = _units("inputs", inputs, units)
        self.outputs = _units("outputs", outputs, units)
        both = np.intersect1d(self.inputs, self.outputs)
        if len(both):
            raise ValueError(f"outputs holds unit {both[0]}, which is an input; no unit can be both")
        pairs = np.sort(np.asarray(edges, int).reshape(-1, 2), axis=1)
        if pairs.size and (pairs.min() < 0 or pairs.max() >= units):
            raise ValueError(f"edges holds a unit out of range; units are 0 to {units - 1}")
        if (pairs[:, 0] == pairs[:, 1]).any():
            raise ValueError(f"edges couples unit {pairs[pairs[:, 0] == pairs[:, 1]][0, 0]} to itself")
        pairs = pairs[~np.isin(pairs, self.inputs).all(axis=1)]
        if len(np.unique(pairs, axis=0)) != len(pairs):
            raise ValueError("edges holds a pair twice")
        self.edges = pairs
        content = [np.array([units]), self.inputs, self.outputs, pairs.ravel()]
        self._digest = hashlib.blake2b(b"|".join(np.asarray(c, np.int64).tobytes() for c in content)).digest()

    def constructor_arguments(self) -> dict[str, Any]:
        """Of what it is made: a call with these arguments makes it anew."""
        return {"units": self.units, "edges": self.edges, "inputs": self.inputs, "outputs": self.outputs}

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self._digest == other._digest

    def __repr__(self) -> str:
        return (
            f"Topology(units={self.units}, edges={len(self.edges)}, inputs={len(self.inputs)}, "
            f"outputs={len(self.outputs)})"
        )

    @classmethod
    def all_to_all(cls, inputs: int, hidden: int, outputs: int) -> "Topology":
        """Every pair that is not clamped is coupled. Units are numbered inputs, hidden, outputs."""
        check_count("inputs", inputs, 1)
        check_count("hidden", hidden, 0)
        check_count("outputs", outputs, 1)
        units = inputs + hidden + outputs
        edges = np.stack(np.triu_indices(units, 1), axis=1)
        return cls(units, edges, inputs=range(inputs), outputs=range(inputs + hidden, units))

    @classmethod
    def layered(cls, layers: Sequence[int]) -> "Topology":
        """All pairs of units of neighbouring layers are coupled; the first is clamped, the last is read."""
        if len(layers) < 2:
            raise ValueError(f"layers is {tuple(layers)}; a network has an input layer and at least one more")
        for size in layers:
            check_count("layers", size, 1)
        ends = np.cumsum([0, *layers])
        rows = [np.arange(a, b) for a, b in pairwise(ends)]
        pairs = [np.stack(np.meshgrid(a, b, indexing="ij"), -1) for a, b in pairwise(rows)]
        edges = np.concatenate([p.reshape(-1, 2) for p in pairs])
        return cls(int(ends[-1]), edges, inputs=rows[0].tolist(), outputs=rows[-1].tolist())

    @classmethod
    def lattice(
        cls, shape: tuple[int, int], *, inputs: Sequence[int], outputs: Sequence[int], periodic: bool = False
    ) -> "Topology":
        """A square lattice with couplings between nearest neighbours; unit `row * columns + column`."""
        rows, columns = shape
        check_count("rows", rows, 1)
        check_count("columns", columns, 1)
        site = np.arange(rows * columns).reshape(rows, columns)
        pairs = [(site[:, :-1], site[:, 1:]), (site[:-1], site[1:])]
        if periodic:
            # A side of two already has that coupling.
            pairs += [(site[:, -1:], site[:, :1])] * (columns > 2) + [(site[-1:], site[:1])] * (rows > 2)
        edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
        return cls(rows * columns, edges, inputs=inputs, outputs=outputs)

    @cached_property
    def free(self) -> np.ndarray:
        """Units that move, ascending: the order of a state."""
        return np.setdiff1d(np.arange(self.units), self.inputs).astype(PLACES)

    @cached_property
    def read(self) -> np.ndarray:
        """Where in a state the outputs are."""
        return np.searchsorted(self.free, self.outputs).astype(PLACES)

    @cached_property
    def edge_at(self) -> np.ndarray:
        """Number of the coupling between two units, or how many there are where none is: shape (units, units)."""
        numbers = np.full((self.units, self.units), len(self.edges), PLACES)
        i, j = self.edges.T
        numbers[i, j] = numbers[j, i] = np.arange(len(self.edges))
        return numbers

    @cached_property
    def groups(self) -> tuple["Group", ...]:
        """The free units in groups that are swept one after the other.

        Where the network is bipartite (layers, square lattices) two groups without inner couplings. Otherwise the
        outputs and the others, each with couplings inside.
        """
        coupled = self.edge_at[np.ix_(self.free, self.free)] < len(self.edges)
        colours = _two_colours(coupled)
        if colours is None:
            colours = np.isin(np.arange(len(self.free)), self.read).astype(int)
        members = [np.flatnonzero(colours == c) for c in np.unique(colours)]
        inner = [coupled[np.ix_(units, units)].any() for units in members]
        # One by one where there are few, and never with a nudged unit, which is found differently.
        chunks = [
            min(CHUNKS, len(units)) if tied and not np.isin(self.read, units).any() else 1
            for units, tied in zip(members, inner, strict=True)
        ]
        return self._grouped(members, chunks)

    @cached_property
    def blocks(self) -> tuple["Group", ...]:
        """The free units in groups that are best moved at once: all in one, or `groups` that have no inner couplings.

        Products with the couplings of layers are smaller than one with all units.
        """
        tied = any(group.edges[index] is not None for index, group in enumerate(self.groups))
        return self._grouped([np.arange(len(self.free))], [1]) if tied else self.groups

    def _grouped(self, members: list[np.ndarray], chunks: list[int]) -> tuple["Group", ...]:
        padded = [_padded(units, number) for units, number in zip(members, chunks, strict=True)]
        return tuple(
            Group(
                units=units.astype(PLACES),
                chunks=chunks[index],
                edges=tuple(self._between(units, other) for other in padded),
                input_edges=self._between(units, None),
                outputs=np.flatnonzero(np.isin(self.read, members[index])).astype(PLACES),
                places=np.searchsorted(members[index], self.read[np.isin(self.read, members[index])]).astype(PLACES),
            )
            for index, units in enumerate(padded)
        )

    def _between(self, rows: np.ndarray, columns: np.ndarray | None) -> np.ndarray | None:
        """Numbers of the couplings of two groups, or of one to the inputs; None where there are none."""
        none = len(self.edges)
        ends = self.inputs if columns is None else self.free[columns]
        numbers = self.edge_at[np.ix_(self.free[rows], ends)]
        numbers = np.where((rows < 0)[:, None], none, numbers)
        if columns is not None:
            numbers = np.where(columns < 0, none, numbers)
        return numbers if (numbers < none).any() else None


class Group(NamedTuple):
    """Some free units, and the numbers of their couplings.

    `units` ends with entries of -1, that are no unit, so that all of its `chunks` are equally long. `edges` is for each
    group, itself included, None where no couplings are. Unit `places[k]` is output `outputs[k]`.
    """

    units: np.ndarray
    chunks: int
    edges: tuple[np.ndarray | None, ...]
    input_edges: np.ndarray | None
    outputs: np.ndarray
    places: np.ndarray


def back(groups: tuple[Group, ...]) -> np.ndarray:
    """Where in the concatenated groups the units of a state are."""
    units = np.concatenate([group.units for group in groups])
    places = np.empty(units.max() + 1, PLACES)
    places[units[units >= 0]] = np.flatnonzero(units >= 0)
    return places


def taken(values: Float[Array, "... all"], places: np.ndarray) -> Float[Array, "... places"]:
    """`values[..., places]`, the last one for every place -1.

    In slices where places follow each other: a CPU gathers one number after the other.
    """
    together = (np.diff(places) == 1) & (places[1:] > 0) | (places[:-1] < 0) & (places[1:] < 0)
    runs = np.split(places, np.flatnonzero(~together) + 1)
    if len(runs) > FEW_RUNS:
        return values[..., places]
    if len(runs) == 1 and np.array_equal(places, np.arange(values.shape[-1])):
        return values

    def run_of(run: np.ndarray) -> Array:
        if run[0] < 0:
            return jnp.broadcast_to(values[..., -1:], (*values.shape[:-1], len(run)))
        return values[..., run[0] : run[-1] + 1]

    return jnp.concatenate([run_of(run) for run in runs], axis=-1)


def _units(name: str, values: Sequence[int], units: int) -> np.ndarray:
    array = np.asarray(list(values), int)
    if not len(array):
        raise ValueError(f"{name} is empty; name at least one unit")
    if array.min() < 0 or array.max() >= units:
        raise ValueError(f"{name} holds {array.min() if array.min() < 0 else array.max()}; units are 0 to {units - 1}")
    if len(np.unique(array)) != len(array):
        raise ValueError(f"{name} names a unit twice")
    return array


def _padded(units: np.ndarray, chunks: int) -> np.ndarray:
    """Units, and -1 until they can be cut into equal chunks."""
    return np.append(units, np.full(-len(units) % chunks, -1))


def _two_colours(coupled: np.ndarray) -> np.ndarray | None:
    """A colour for every unit such that no coupled pair has the same one, or None where two do not suffice."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, shortest_path

    graph = coo_array(coupled.astype(float)).tocsr()
    _, component = connected_components(graph, directed=False)
    roots = np.unique(component, return_index=True)[1]
    steps = np.min(shortest_path(graph, directed=False, unweighted=True, indices=roots), axis=0)
    colours = steps.astype(int) % 2
    return colours if not (coupled & (colours[:, None] == colours[None])).any() else None
