"""What Wang, Wanjura and Marquardt show and say."""

from morphax.lab.paper import Item, Paper

WANG = Paper(
    authors="Q. Wang, C. C. Wanjura, F. Marquardt",
    title="Training coupled phase oscillators as a neuromorphic platform using equilibrium propagation",
    published="Neuromorphic Computing and Engineering 4, 034014 (2024); read as the preprint arXiv:2402.08579",
    link="https://doi.org/10.1088/2634-4386/ad752b",
    items={
        "gradient": Item("Eq. 7", "nudged and free equilibria differ by the gradient"),
        "cost": Item(
            "Sec. II B, App. A", "the distance (Eq. 3) stays long where phases are opposite; Eq. 4 is more efficient"
        ),
        "overlap": Item("App. A", "the cost (Eq. 4) is -log of an overlap of quantum states, but for a constant"),
        "eigenstate": Item("App. A", "these are exactly eigenstates of cos(phi) X + sin(phi) Y, with eigenvalue +1"),
        "symmetric nudging": Item("Sec. II B", "nudging away from the target is not possible with Eq. 4"),
        "frequencies": Item("Sec. II A", "a small spread of natural frequencies is tolerated, a large one is not"),
        "equilibria": Item(
            "Sec. II B", "the number of fixed points grows exponentially with the size; few of them are stable"
        ),
        "moving equilibria": Item(
            "Sec. II B, Fig. 2b", "in training fixed points may move away from the target; stable ones may be lost"
        ),
        "noise": Item("Sec. II B", "noise and a Boltzmann distribution could take the place of many starts"),
        "xor learned": Item("Fig. 3a", "the distance of five units almost always converges to 0"),
        "xor size": Item("Fig. 3b", "larger networks learn faster up to 8 units, then slower"),
        "xor equilibria": Item(
            "Fig. 3c", "the output becomes a unique function of the input, hidden units stay multistable"
        ),
        "xor starts": Item("Fig. 3d", "more initial states speed learning up, and saturate"),
        "xor five units": Item(
            "Sec. III A, Fig. 3d", "the effect is not obvious for five units, as multistability is rare"
        ),
        "xor exponential": Item("Sec. III A", "early in training the distance decays exponentially"),
        "xor physical speed": Item(
            "Sec. III A, Fig. 3e", "speed per relaxation is highest at few initial states: a few of them save time"
        ),
        "parameters": Item("Tab. I", "sizes and parameters of the networks"),
        "layered": Item("Tab. II", "test accuracies of layered networks: 91.9, 92.7, 94.1, 93.7 %"),
        "all-to-all": Item("Tab. II", "test accuracies of all-to-all networks: 93.3, 92.7, 92.4, 92.9 %"),
        "perceptron": Item("Tab. II", "test accuracies of artificial networks: 94.3, 95.0, 95.0, 95.1 %"),
        "linear": Item("Tab. II", "test accuracies of linear classifiers: 90.4, 90.3, 90.7, 90.7 %"),
        "between": Item(
            "Sec. III B", "the best of both kinds are above linear classifiers and below artificial networks"
        ),
        "same parameters": Item(
            "App. B", "artificial networks have the architecture and the number of parameters of layered networks"
        ),
        "layered size": Item("Sec. III B", "layers gain by size, and lose again from 200 to 300 hidden units"),
        "all-to-all size": Item(
            "Sec. III B", "all-to-all networks stay as they are, with a slight drop from 11 to 75 hidden units"
        ),
        "all-to-all best": Item("Sec. III B", "the best all-to-all network, 93.3 %, has 11 hidden units"),
        "layered speed": Item(
            "Fig. 4b, c", "layers learn faster the larger they are, saturating above 200 hidden units"
        ),
        "all-to-all speed": Item("Fig. 4b, c", "training curves of all-to-all networks almost overlap"),
        "sensitivity": Item(
            "Sec. III B, Fig. 4d",
            "the speed of learning depends on the size of layers, negligibly on that of all-to-all ones",
        ),
        "confusion": Item("Fig. 4d", "layers are slower than all-to-all networks when small, and faster when large"),
        "lattice": Item("Sec. III B", "a square lattice with nearest neighbours could not be made to learn"),
    },
)
