"""What Pehle and Wetterich show and say."""

from morphax.lab.paper import Item, Paper

PEHLE = Paper(
    authors="C. Pehle, C. Wetterich",
    title="Neuromorphic quantum computing",
    published="Physical Review E 106, 045311 (2022)",
    link="https://doi.org/10.1103/PhysRevE.106.045311",
    items={
        "entangled": Item("Figs. 1, 2", "psi_+, a random rho and their images under CNOT are classical distributions"),
        "global": Item("Secs. II, VIII", "the correlations typically connect all six spins"),
        "not unique": Item("Sec. IV", "for most density matrices q is not unique, the map is not invertible"),
        "descent": Item("Fig. 3a", "descent finds q for all density matrices of a chain of gates, to 1e-10"),
        "few iterations": Item("Fig. 3b", "after rather few iterations"),
        "dense": Item("Sec. IV", "the chain of gates covers the density matrices of two qubits densely"),
        "complete": Item("Secs. I, IV", "the map is complete: every density matrix of two qubits has a distribution"),
        "gates": Item("Sec. IV", "for every state and gate a matrix M was found"),
        "sequences": Item("Sec. V", "this type of neural network can learn unitary transformations"),
        "information": Item("Sec. VIII", "no information in the subsystem that the density matrix describes is lost"),
        "every state": Item("Sec. I", "for every density matrix of two qubits the neurons learn suitable weights"),
        "fidelity": Item("Fig. 4", "spiking neurons learn a random state and psi_+ with acceptable fidelity"),
        "coefficients": Item("Fig. 5", "expectation values and correlations of the trained networks"),
        "longer": Item("Fig. 4", "the entangled state takes somewhat longer than the random one"),
        "printed training": Item("Sec. V", "the printed training: rate 10, decay constant 1/100, 1e5 steps"),
        "random three": Item("Sec. VI", "most random states of three qubits have a distribution"),
        "ghz": Item("Sec. I, Eqs. 47-51", "GHZ has none: the minimal map is not complete for three or more qubits"),
        "onset": Item("Figs. 7, 8", "on the way to GHZ that sets in rather sharply"),
        "ghz fidelity": Item("Fig. 8a", "fidelity of the best distribution: a clear insufficiency close to GHZ"),
        "ghz entropy": Item("Fig. 8b", "relative entropy of the best distribution: likewise"),
        "extended ghz": Item("Eqs. 54-59", "the extended map realises GHZ, by a distribution that is given"),
        "extended": Item("Sec. VI", "no other state of three qubits was found that the extended map cannot realise"),
        "spins": Item(
            "Sec. VI", "9/2 Q^2 - 3/2 Q spins for Q qubits, with correlations of up to three of them for Q = 5"
        ),
        "four qubits": Item("Sec. VI", "whether the extended map is complete for more qubits is open"),
        "few functions": Item("Sec. VII", "its energy needs n two-point functions and n expectation values of 2^(2 Q)"),
        "partial constraints": Item(
            "Sec. VII", "few quantum constraints may be enough for the Ising chain's ground state"
        ),
        "distribution": Item("Fig. 9c", "sampling approximates a distribution as well as in Ref. 14"),
        "error bars": Item("Fig. 9b", "least and largest values over 16 sampling runs"),
        "refractory times": Item(
            "Fig. 9a, App. B", "a spike begins a refractory time of 10 ms, the neuron's active state"
        ),
        "instances": Item("Fig. 9c", "average loss and standard deviation over five instances in 10^3 steps"),
    },
)
