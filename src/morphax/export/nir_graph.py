"""Spiking networks in the Neuromorphic Intermediate Representation (NIR), which simulators and chips exchange."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from morphax._checks import check_range, check_shape
from morphax._optional import needed
from morphax.substrates.spiking import SpikingNetwork

if TYPE_CHECKING:
    from nir import NIRGraph

PER_SECOND = 1000.0
FORM = {"Input": 1, "Linear": 2, "CubaLIF": 1, "Output": 1}


def to_nir(network: SpikingNetwork) -> "NIRGraph":
    r"""The graph of a spiking network: Input, Linear, CubaLIF, Output, and a Linear from the CubaLIF back to itself.

    $$\tau_\mathrm{syn} \dot I = -I + w_\mathrm{in} (W_\mathrm{in} S^\mathrm{in} + W_\mathrm{rec} S), \qquad
      \tau_\mathrm{mem} \dot v = v_\mathrm{leak} - v + R I$$

    with $S = 1$ and $v \to v_\mathrm{reset}$ where $v > v_\mathrm{threshold}$. NIR does not say how long a spike is. In
    its simulators it lasts one time step $h$, in which the method of Euler adds $h w_\mathrm{in} / \tau_\mathrm{syn}$
    times a weight to a current. So $w_\mathrm{in} = \tau_\mathrm{syn} / h$ makes currents jump by weights, and the
    graph is the network at the network's own time step only; its metadata tell it (`time_step`, in s).

    **Units:** times in s, as simulators of NIR take them; voltages and currents as in the network. Numbers of neurons
    are arrays of shape (neurons,).

    **Method and order of operations:** left to simulators, which use the method of Euler; an "exact" network spikes
    differently there, by the error of that method. In the reference implementation of NIR's authors voltages follow the
    currents of the step before, as in a `SpikingNetwork`. In Norse currents jump first: the same spikes, one time step
    earlier. Norse also resets to 0 and lets *currents* decay to the leak potential, so both must be 0 for it.

    **Left out,** since NIR has no place for them: initial states, the method, Poisson inputs (`input_rate`; a graph
    gets spikes), input intervals, which neurons are measured (all are the output), and the steepness of the replaced
    derivative.

    **Raises:** `ValueError` for refractory times longer than the step of the spike, which NIR lacks: the graph would
    spike more often. `ImportError` without nir.

    Source: Pedersen et al., Nat. Commun. 15, 8122 (2024); the definition of `nir.CubaLIF`.

        >>> import jax.numpy as jnp
        >>> from morphax.export.nir_graph import to_nir
        >>> from morphax.substrates.spiking import SpikingNetwork
        >>> graph = to_nir(SpikingNetwork(jnp.zeros((1, 1)), jnp.ones((1, 2)), synaptic_time_constant=5.0))
        >>> graph.nodes["neurons"].tau_syn, graph.nodes["neurons"].w_in
        (array([0.005]), array([5.]))
    """
    nir = needed("nir", "export")

    if network.refractory_steps > 1:
        raise ValueError(
            f"network has refractory_steps = {network.refractory_steps}; NIR has no refractory time, it must be 1"
        )
    neurons, inputs = network.input_weights.shape
    synaptic = _numbers(network.synaptic_time_constant)
    nodes = {
        "input": nir.Input({"input": np.array([inputs])}),
        "input_weights": nir.Linear(np.array(network.input_weights)),
        "neurons": nir.CubaLIF(
            tau_syn=synaptic / PER_SECOND,
            tau_mem=_numbers(network.membrane_time_constant) / PER_SECOND,
            r=_numbers(network.resistance),
            v_leak=_numbers(network.leak_potential),
            v_threshold=_numbers(network.threshold),
            v_reset=_numbers(network.reset_potential),
            w_in=synaptic / network.time_step,
        ),
        "recurrent_weights": nir.Linear(np.array(network.recurrent_weights)),
        "output": nir.Output({"output": np.array([neurons])}),
    }
    # The output comes last: nirtorch returns what the last node on its way along the edges computes.
    edges = _edges("input", "input_weights", "neurons", "recurrent_weights", "output")
    return nir.NIRGraph(nodes, edges, metadata={"time_step": network.time_step / PER_SECOND})


def from_nir(graph: "NIRGraph", *, time_step: float, **options: Any) -> SpikingNetwork:
    r"""The spiking network of a graph of the form that `to_nir` writes, whatever the names of its nodes.

    Weights become the jumps of currents in a time step, $h w_\mathrm{in} / \tau_\mathrm{syn}$ times those of the graph
    (see `to_nir`).

    **Arguments:**

    - `graph`: Input, Linear, CubaLIF, Output, and a Linear from the CubaLIF back to itself; times in s.
    - `time_step`: $h > 0$ in ms, not longer than any time constant.
    - `options`: what NIR leaves out: `method`, `input_rate`, `steps_per_input`, `visible`, `refractory_steps`,
      `steepness` of `SpikingNetwork`.

    **Raises:** `ValueError` for graphs of another form (says which node or edge), and for numbers outside the ranges of
    `SpikingNetwork`; `ImportError` without nir.

        >>> import jax.numpy as jnp
        >>> from morphax.export.nir_graph import from_nir, to_nir
        >>> from morphax.substrates.spiking import SpikingNetwork
        >>> graph = to_nir(SpikingNetwork(jnp.zeros((1, 1)), jnp.ones((1, 2)), threshold=0.7))
        >>> from_nir(graph, time_step=1.0, method="exact").threshold
        Array([0.7], dtype=float32)
    """
    check_range("time_step", time_step, low=0.0, open_low=True)
    forward, neurons, back = _parts(graph)
    input_weights = _array(graph, forward, "weight", (None, None))
    size = len(input_weights)
    recurrent_weights = _array(graph, back, "weight", (size, size))

    def number(field: str) -> np.ndarray:
        return _array(graph, neurons, field, (size,))

    def time_constant(field: str) -> np.ndarray:
        seconds = number(field)
        check_range(f"{field} of node {neurons!r}", seconds, low=0.0, open_low=True)
        # By rounding, one that is the time step could be too short.
        value = seconds * PER_SECOND
        return np.where(np.isclose(value, time_step, rtol=1e-6, atol=0), time_step, value)

    synaptic = time_constant("tau_syn")
    jump = (number("w_in") * time_step / synaptic)[:, None]
    return SpikingNetwork(
        recurrent_weights * jump,
        input_weights * jump,
        membrane_time_constant=time_constant("tau_mem"),
        synaptic_time_constant=synaptic,
        threshold=number("v_threshold"),
        leak_potential=number("v_leak"),
        reset_potential=number("v_reset"),
        resistance=number("r"),
        time_step=time_step,
        **options,
    )


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, float)


def _array(graph: "NIRGraph", node: str, field: str, shape: Sequence[int | None]) -> np.ndarray:
    value = _numbers(getattr(graph.nodes[node], field))
    check_shape(f"{field} of node {node!r}", value, shape)
    return value


def _edges(source: str, forward: str, neurons: str, back: str, sink: str) -> list[tuple[str, str]]:
    return [(source, forward), (forward, neurons), (neurons, back), (back, neurons), (neurons, sink)]


def _parts(graph: "NIRGraph") -> tuple[str, str, str]:
    """Names of the Linear of the input, the CubaLIF and the recurrent Linear."""
    nir = needed("nir", "export")

    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"graph is a {type(graph).__name__}; it must be a NIRGraph")
    names: dict[str, list[str]] = {kind: [] for kind in FORM}
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if kind not in FORM:
            raise ValueError(f"node {name!r} of graph is of type {kind}; it must be one of {', '.join(FORM)}")
        names[kind].append(name)
    for kind, wanted in FORM.items():
        if len(names[kind]) != wanted:
            raise ValueError(f"graph has {len(names[kind])} nodes {kind} {names[kind]}; it must have {wanted}")
    (source,), linear, (neurons,), (sink,) = names.values()
    found = Counter((start, end) for start, end in graph.edges)
    forward, back = linear if (source, linear[0]) in found else linear[::-1]
    wanted = Counter(_edges(source, forward, neurons, back, sink))
    chain = " -> ".join(map(repr, (source, forward, neurons, sink)))
    form = f"its edges must be {chain} and {neurons!r} -> {back!r} -> {neurons!r}"
    for start, end in found - wanted:
        raise ValueError(f"graph has the edge {start!r} -> {end!r}, one too many; {form}")
    for start, end in wanted - found:
        raise ValueError(f"graph lacks the edge {start!r} -> {end!r}; {form}")
    return forward, neurons, back
