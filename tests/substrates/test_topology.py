"""Who is coupled to whom: numbers of neighbours, groups that can be swept, and refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from morphax.substrates.topology import CHUNKS, Topology, back, taken

NETWORKS = {
    "layered": Topology.layered((3, 4, 5, 2)),
    "lattice": Topology.lattice((3, 5), inputs=[0, 7], outputs=[14, 3]),
    "torus": Topology.lattice((4, 6), inputs=[0], outputs=[23], periodic=True),
    "odd torus": Topology.lattice((3, 4), inputs=[0], outputs=[5, 11], periodic=True),
    "all-to-all": Topology.all_to_all(3, 6, 2),
    "many": Topology.all_to_all(2, CHUNKS + 7, 3),
    "two parts": Topology(6, [(0, 1), (2, 3), (4, 3)], inputs=[0], outputs=[5, 1]),
}


@pytest.fixture(params=NETWORKS)
def network(request) -> Topology:
    return NETWORKS[request.param]


def test_numbers_of_couplings():
    assert len(Topology.all_to_all(3, 6, 2).edges) == 11 * 10 // 2 - 3  # inputs are not coupled to each other
    assert len(Topology.layered((3, 4, 5, 2)).edges) == 3 * 4 + 4 * 5 + 5 * 2
    assert len(Topology.all_to_all(1, 0, 1).edges) == 1


def test_units_are_numbered_from_inputs_to_outputs():
    for network in (Topology.layered((3, 4, 5, 2)), Topology.all_to_all(3, 9, 2)):
        assert network.inputs.tolist() == [0, 1, 2]
        assert network.outputs.tolist() == [12, 13]
        assert network.free.tolist() == list(range(3, 14))
        assert network.read.tolist() == [9, 10]


def test_lattice_neighbours():
    assert len(Topology.lattice((3, 4), inputs=[0], outputs=[1]).edges) == 17
    torus = Topology.lattice((3, 4), inputs=[0], outputs=[1], periodic=True)
    assert len(torus.edges) == 24
    assert np.all(np.bincount(torus.edges.ravel()) == 4)
    assert len(Topology.lattice((2, 4), inputs=[0], outputs=[1], periodic=True).edges) == 12


def test_lattice_neighbours_are_next_to_each_other():
    network = Topology.lattice((3, 5), inputs=[0], outputs=[1])
    rows, columns = np.divmod(network.edges, 5)
    assert np.all(np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1)
    degrees = np.bincount(network.edges.ravel()).reshape(3, 5)
    assert degrees[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [2] * 4
    assert np.all(degrees[1, 1:-1] == 4)


def test_every_coupling_has_its_number(network):
    numbers = network.edge_at
    np.testing.assert_array_equal(numbers, numbers.T)
    assert np.all(np.diag(numbers) == len(network.edges))
    for number, (i, j) in enumerate(network.edges):
        assert numbers[i, j] == number
    assert np.sum(numbers < len(network.edges)) == 2 * len(network.edges)


@pytest.mark.parametrize("kind", ["groups", "blocks"])
def test_groups_hold_every_free_unit_once(network, kind):
    groups = getattr(network, kind)
    units = np.concatenate([group.units for group in groups])
    assert sorted(units[units >= 0]) == list(range(len(network.free)))
    np.testing.assert_array_equal(units[back(groups)], np.arange(len(network.free)))
    assert sorted(np.concatenate([group.outputs for group in groups])) == list(range(len(network.outputs)))
    for group in groups:
        np.testing.assert_array_equal(group.units[group.places], network.read[group.outputs])
        assert len(group.units) % group.chunks == 0
        assert 1 <= group.chunks <= CHUNKS


@pytest.mark.parametrize("kind", ["groups", "blocks"])
def test_groups_hold_every_coupling(network, kind):
    none, seen = len(network.edges), []
    groups = getattr(network, kind)
    for index, group in enumerate(groups):
        for other in range(index + 1):
            numbers = group.edges[other]
            if numbers is not None:
                found = numbers[numbers < none]
                seen += sorted(found)[:: 2 if other == index else 1]  # inside a group every coupling stands twice
        if group.input_edges is not None:
            seen += group.input_edges[group.input_edges < none].tolist()
    assert sorted(seen) == list(range(none))


@pytest.mark.parametrize(
    "places", [[0, 1, 2, 3], [2, 3], [3, 0, 1], [0, 2, -1, -1], [1, -1, 0], [0, 2] * 6], ids=lambda p: str(len(p))
)
def test_what_is_taken_in_slices_is_what_indexing_takes(places):
    values = jnp.arange(8.0).reshape(2, 4)
    np.testing.assert_array_equal(taken(values, np.array(places)), values[:, places])


@pytest.mark.parametrize("name", ["layered", "lattice", "torus", "two parts"])
def test_a_bipartite_network_has_two_groups_without_inner_couplings(name):
    groups = NETWORKS[name].groups
    assert len(groups) <= 2
    for index, group in enumerate(groups):
        assert group.edges[index] is None
        assert group.chunks == 1


@pytest.mark.parametrize("name", ["odd torus", "all-to-all", "many"])
def test_otherwise_the_outputs_are_a_group(name):
    network = NETWORKS[name]
    hidden, read = network.groups
    assert sorted(read.units) == sorted(network.read)
    assert read.chunks == 1
    assert hidden.chunks == min(CHUNKS, len(network.free) - len(network.outputs))


def test_topologies_are_values():
    assert Topology.layered((2, 3, 1)) == Topology.layered((2, 3, 1))
    assert hash(Topology.layered((2, 3, 1))) == hash(Topology.layered((2, 3, 1)))
    assert Topology.layered((2, 3, 1)) != Topology.layered((2, 2, 2))
    chain = Topology(3, [(0, 1), (1, 2)], inputs=[0], outputs=[2])
    assert chain == Topology(3, np.array([[1, 0], [2, 1]]), inputs=[0], outputs=[2])  # a coupling has no direction
    others = [
        Topology(4, [(0, 1), (1, 2)], inputs=[0], outputs=[2]),
        Topology(3, [(0, 1), (0, 2)], inputs=[0], outputs=[2]),
        Topology(3, [(0, 1), (1, 2)], inputs=[1], outputs=[2]),
        Topology(3, [(0, 1), (1, 2)], inputs=[0], outputs=[1]),
    ]
    assert len({chain, *others}) == 5
    assert chain != "chain"
    assert repr(chain) == "Topology(units=3, edges=2, inputs=1, outputs=1)"


def test_a_coupling_of_two_inputs_is_left_out():
    network = Topology(3, [(0, 1), (1, 2)], inputs=[0, 1], outputs=[2])
    assert network.edges.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Topology(3, [(0, 1)], inputs=[0, 1], outputs=[1]), "outputs holds unit 1, which is an input"),
        (lambda: Topology(3, [(0, 1)], inputs=[0], outputs=[3]), "outputs holds 3; units are 0 to 2"),
        (lambda: Topology(3, [(0, 1)], inputs=[], outputs=[2]), "inputs is empty"),
        (lambda: Topology(3, [(0, 0)], inputs=[0], outputs=[2]), "edges couples unit 0 to itself"),
        (lambda: Topology(3, [(0, 1), (1, 0)], inputs=[0], outputs=[2]), "edges holds a pair twice"),
        (lambda: Topology(3, [(0, 5)], inputs=[0], outputs=[2]), "edges holds a unit out of range"),
        (lambda: Topology.layered((3,)), "layers is"),
        (lambda: Topology(1, [], inputs=[0], outputs=[0]), "units is 1; it must be a whole number >= 2"),
        (lambda: Topology(3, [(0, 1)], inputs=[-1], outputs=[2]), "inputs holds -1; units are 0 to 2"),
        (lambda: Topology(3, [(0, 1)], inputs=[0, 0], outputs=[2]), "inputs names a unit twice"),
        (lambda: Topology.all_to_all(0, 1, 1), "inputs is 0"),
        (lambda: Topology.all_to_all(1, -1, 1), "hidden is -1"),
        (lambda: Topology.layered((3, 0)), "layers is 0"),
        (lambda: Topology.lattice((0, 3), inputs=[0], outputs=[1]), "rows is 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
