"""What Barney, Lakhdar-Hamina and Galitski show and say."""

from morphax.lab.paper import Item, Paper

BARNEY = Paper(
    authors="R. Barney, D. Lakhdar-Hamina, V. Galitski",
    title="Natural quantization of neural networks",
    published="preprint (2025)",
    link="https://arxiv.org/abs/2503.15482",
    items={
        "overfitting": Item("Fig. 2", "the training error quickly vanishes, the validation error bottoms out"),
        "shots": Item("Fig. 4", "a few shots outperform deterministic inference, more than 10 gain little"),
        "classical limit": Item(
            "abstract, Eqs. 5 to 8", "a -> 0 and g = pi / 2 recover the classical network exactly, and smoothly"
        ),
        "widths": Item("Fig. 5a", "training curves of several widths a"),
        "rotation": Item("Fig. 5b", "least validation error 0.0472, at a = 10^-1/2"),
        "rotation helps": Item(
            "Fig. 5b", "some nonzero a has a significantly smaller error than the classical network"
        ),
        "too wide": Item("Fig. 5b", "too large an a is worse than classical"),
        "tunnelling": Item(
            "Sec. on rotation, conclusion",
            "the gain can be understood as quantum tunnelling out of unfavourable minima",
        ),
        "entanglement": Item("after Eq. 8", "at g = pi / 2 qubit and ancilla are in a maximally entangled Bell state"),
        "wrong activations": Item(
            "Sec. on weak measurement", "every activation is wrong with probability (1 - sin g) / 2"
        ),
        "preactivations": Item(
            "Sec. on weak measurement, conclusion",
            "a rotation errs only where the preactivation is below a; weak measurements err whatever it is",
        ),
        "coherence": Item(
            "Sec. on weak measurement", "that coherence is not fully destroyed is the advantage of weak measurements"
        ),
        "convergence time": Item("Fig. 7a", "the time of convergence hardly changes until g is small"),
        "weak": Item("Fig. 7b", "least validation error 0.0529, at g = 5 pi / 19"),
        "weak helps": Item(
            "Fig. 7b", "some g below pi / 2 has a significantly smaller error than the classical network"
        ),
        "transition": Item("abstract, Fig. 7b", "learning is lost sharply at a critical g_c of about pi / 8"),
        "weak below rotation": Item("Fig. 7b", "0.0529 is slightly worse than 0.0472; its significance is uncertain"),
        "both": Item("Fig. 8", "least validation error 0.0463, at a = 10^-1/3 and g = 9 pi / 19"),
        "both help": Item("Fig. 8", "more a, less g, or both improve on the classical network, up to a point"),
        "valley": Item("Fig. 8", "the error varies little along a curved valley"),
        "realizable": Item("abstract", "such networks are readily realizable in present-day quantum computers"),
    },
)
