"""Exported graphs back from a file, by the equations of NIR, and in another simulator."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from morphax import evolve
from morphax.export.nir_graph import from_nir, to_nir
from morphax.substrates.spiking import SpikingNetwork

NEURONS, INPUTS, STEP = 6, 4, 0.5
RANDOM = np.random.default_rng(4)  # keeps every voltage 3e-4 away from threshold, so that rounding makes no spikes
RECURRENT = RANDOM.normal(0.0, 0.6, (NEURONS, NEURONS))
RECURRENT -= RECURRENT.mean(axis=1, keepdims=True)
INPUT = RANDOM.normal(0.0, 0.4, (NEURONS, INPUTS))
INPUT += 0.3 - INPUT.mean(axis=1, keepdims=True)
SPIKES = (RANDOM.random((200, INPUTS)) < 0.15).astype(float)


def network(**rest) -> SpikingNetwork:
    numbers = {
        "membrane_time_constant": np.linspace(6.0, 12.0, NEURONS),
        "synaptic_time_constant": np.linspace(2.0, 6.0, NEURONS),
        "threshold": np.linspace(0.6, 1.2, NEURONS),
        "resistance": np.linspace(2.5, 1.5, NEURONS),
        "time_step": STEP,
    }
    return SpikingNetwork(RECURRENT, INPUT, **(numbers | rest))


def spikes_of(net: SpikingNetwork) -> np.ndarray:
    """Every neuron spikes, and in less than half of the steps."""
    active = np.asarray(evolve(net, jnp.asarray(SPIKES))[0])
    often = active.sum(axis=0)
    assert often.min() >= 5, often
    assert often.max() < len(SPIKES) / 2, often
    return active


@pytest.mark.parametrize(
    "numbers",
    [
        {"leak_potential": np.linspace(0.3, 0.0, NEURONS), "reset_potential": np.linspace(-0.2, 0.1, NEURONS)},
        {"method": "exact"},
    ],
)
def test_a_network_comes_back_from_a_file(tmp_path, numbers):
    net = network(**numbers)
    nir.write(tmp_path / "network.nir", to_nir(net))
    back = from_nir(nir.read(tmp_path / "network.nir"), time_step=STEP, method=net.method)
    assert jax.tree.structure(back) == jax.tree.structure(net)
    for expected, found in zip(jax.tree.leaves(net), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(spikes_of(back), spikes_of(net))


def test_time_constants_of_one_step_come_back():
    net = network(synaptic_time_constant=0.7, membrane_time_constant=0.7, time_step=0.7)
    np.testing.assert_array_equal(from_nir(to_nir(net), time_step=0.7).membrane_time_constant, np.float32(0.7))


def test_what_nir_leaves_out_is_given_again():
    options = {"refractory_steps": 3, "steps_per_input": 5, "visible": 2, "input_rate": 0.7, "steepness": 9.0}
    back = from_nir(to_nir(network()), time_step=STEP, **options)
    np.testing.assert_array_equal(back.input_rate, np.float32(0.7))
    assert {name: getattr(back, name) for name in options} | {"input_rate": 0.7} == options


def test_spikes_last_one_time_step():
    """Half as long, they move half as much charge."""
    half = from_nir(to_nir(network()), time_step=STEP / 2)
    np.testing.assert_allclose(half.input_weights, INPUT / 2, rtol=1e-6)
    np.testing.assert_allclose(half.recurrent_weights, RECURRENT / 2, rtol=1e-6)


@pytest.mark.usefixtures("double")
def test_the_graph_means_the_network():
    """By the equations of `nir.CubaLIF`, in s, with the method of Euler: all rates from the state before the step."""
    potentials = {"leak_potential": np.linspace(0.3, 0.0, NEURONS), "reset_potential": np.linspace(-0.2, 0.1, NEURONS)}
    net = network(**potentials)
    graph = to_nir(net)
    nodes: Any = graph.nodes
    cell, h = nodes["neurons"], graph.metadata["time_step"]
    assert h == STEP / 1000
    v, current, found = cell.v_leak, np.zeros(NEURONS), []
    for arriving in SPIKES:
        v_next = v + h / cell.tau_mem * (cell.v_leak - v + cell.r * current)
        spikes = v_next > cell.v_threshold
        weighted = nodes["input_weights"].weight @ arriving + nodes["recurrent_weights"].weight @ spikes
        current = current + h / cell.tau_syn * (cell.w_in * weighted - current)
        v = np.where(spikes, cell.v_reset, v_next)
        found.append(spikes)
    np.testing.assert_array_equal(np.array(found), spikes_of(net))


@pytest.mark.norse
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Norse's use of PyTorch and of nirtorch
def test_the_graph_spikes_alike_in_norse(tmp_path):
    torch, norse = import_module("torch"), import_module("norse.torch")
    net = network()
    nir.write(tmp_path / "network.nir", to_nir(net))
    graph = nir.read(tmp_path / "network.nir")
    simulated, state, found = norse.from_nir(graph, dt=STEP / 1000), None, []
    with torch.no_grad():
        for arriving in SPIKES:
            spikes, state = simulated(torch.tensor(arriving, dtype=torch.float32), state)
            found.append(spikes.numpy())
    # In a step of Norse currents jump and then voltages follow, here the other way round; recurrent spikes arrive in
    # the currents of the next step of Norse, of this step here. So the states agree when Norse is one step ahead.
    np.testing.assert_array_equal(np.array(found)[:-1], spikes_of(net)[1:])


def other(changed=None, edges=None, without=()):
    """The graph of a network with other nodes and edges; an incomplete one is not checked by NIR."""
    graph = to_nir(network())
    nodes = {name: node for name, node in (graph.nodes | (changed or {})).items() if name not in without}
    kept = [edge for edge in graph.edges if edge[0] in nodes and edge[1] in nodes]
    return nir.NIRGraph(nodes, kept if edges is None else edges, type_check=False)


def cell(**numbers):
    node = to_nir(network()).nodes["neurons"]
    for name, value in numbers.items():
        setattr(node, name, value)
    return {"neurons": node}


EDGES = to_nir(network()).edges


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nir.Linear(INPUT), "graph is a Linear"),
        (
            other({"recurrent_weights": nir.Affine(RECURRENT, np.ones(NEURONS))}),
            "node 'recurrent_weights' of graph is of type Affine; it must be one of Input, Linear, CubaLIF, Output",
        ),
        (other({"more": nir.Linear(RECURRENT)}), r"3 nodes Linear \['input_weights', .*; it must have 2"),
        (other(without=["output"]), r"0 nodes Output \[\]; it must have 1"),
        (other(edges=[*EDGES, ("input_weights", "output")]), "edge 'input_weights' -> 'output', one too many"),
        (other(edges=[*EDGES, EDGES[-1]]), "edge 'neurons' -> 'output', one too many"),
        (other(edges=EDGES[:-2] + EDGES[-1:]), "lacks the edge 'recurrent_weights' -> 'neurons'; its edges must be"),
        (other({"recurrent_weights": nir.Linear(INPUT)}), r"weight of node 'recurrent_weights' has shape \(6, 4\)"),
        (other({"input_weights": nir.Linear(INPUT[None])}), r"weight of node 'input_weights' has shape \(1, 6, 4\)"),
        (other(cell(v_leak=np.zeros(()))), r"v_leak of node 'neurons' has shape \(\); it must be \(6,\)"),
        (other(cell(tau_syn=np.zeros(NEURONS))), "tau_syn of node 'neurons' is 0.0; it must be > 0"),
        (other(cell(tau_mem=np.full(NEURONS, 2e-4))), "membrane_time_constant is 0.2; it must be >= 0.5"),
    ],
)
def test_graphs_of_another_form_are_refused(graph, message):
    with pytest.raises(ValueError, match=message):
        from_nir(graph, time_step=STEP)


def test_names_and_order_of_nodes_do_not_matter():
    graph = to_nir(network())
    named = {f"{9 - place}": graph.nodes[name] for place, name in enumerate(reversed(graph.nodes))}
    new = dict(zip(reversed(graph.nodes), named, strict=True))
    back = from_nir(nir.NIRGraph(named, [(new[a], new[b]) for a, b in reversed(graph.edges)]), time_step=STEP)
    np.testing.assert_array_equal(back.recurrent_weights, network().recurrent_weights)


def test_a_refractory_time_and_a_wrong_step_are_refused():
    with pytest.raises(ValueError, match="refractory_steps = 3; NIR has no refractory time, it must be 1"):
        to_nir(network(refractory_steps=3))
    with pytest.raises(ValueError, match="time_step is 0"):
        from_nir(to_nir(network()), time_step=0.0)
