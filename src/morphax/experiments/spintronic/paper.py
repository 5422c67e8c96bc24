"""What Plouet et al. show and say."""

from morphax.lab.paper import Item, Paper

PLOUET = Paper(
    authors="E. Plouet, D. Sanz-Hernández, A. Vecchiola, J. Grollier, F. Mizrahi",
    title="Training a multilayer dynamical spintronic network with standard machine-learning tools to perform "
    "time-series classification",
    published="Physical Review Applied 23, 034051 (2025)",
    link="https://doi.org/10.1103/PhysRevApplied.23.034051",
    items={
        "nonlinear damping": Item("Sec. II", "a nonzero Q gives additional nonlinearity and computing power"),
        "high-pass filters": Item(
            "Sec. II", "high-pass filters of 1 MHz and the amplification keep the drives centred around zero"
        ),
        "half power": Item("Sec. II", "powers vary around half of the largest"),
        "integrators": Item("Fig. 1b-d", "each layer acts as an integrator that slows information down"),
        "spintronic": Item("Sec. III", "89.83 % ± 2.91 % of the sequential digits"),
        "ctrnn": Item("Sec. III", "a CTRNN reaches 89.00 % ± 3.48 %"),
        "as good": Item("Sec. III", "the spintronic network is as good as the CTRNN"),
        "bounded": Item("Sec. III", "the state of a spintronic neuron is intrinsically bounded, between 0 and 1"),
        "separation": Item("Sec. III, Fig. 1d", "evolutions of the output differ between classes and are alike in one"),
        "tuned": Item("Sec. III", "tuning finds tau = 14.12 ns, rate 0.149, decay 8.077"),
        "real oscillator": Item("Sec. III", "alpha = 0.01 and 7.1 GHz are such an oscillator"),
        "range": Item("Fig. 2b", "the accuracy is maintained from 0.4 to 2.5 ns between inputs"),
        "maximum": Item("Fig. 2b", "and largest at 1 ns"),
        "beyond the range": Item("Fig. 2b", "well below and well above 1 ns it is significantly degraded"),
        "ctrnn range": Item("Fig. 2b", "here again the network is as good as the CTRNN"),
        "rich dynamics": Item("Sec. IV, Fig. 2d", "at 1 ns inputs lead to rich varied dynamics"),
        "too slow": Item("Fig. 2c", "neurons smooth an input that is too fast"),
        "too fast": Item(
            "Sec. IV, Fig. 2e", "and follow one that is too slow; their memory is too short to remember enough points"
        ),
        "relaxation times": Item("Fig. 3a", "the best interval grows with the relaxation time"),
        "bell": Item("Fig. 3a", "against the interval the accuracy is always bell-shaped, for three relaxation times"),
        "learning rates": Item("Fig. 3b", "faster inputs need higher learning rates"),
        "higher weights": Item("Sec. IV", "fast inputs need higher weights, and higher learning rates reach them"),
        "relaxation rule": Item(
            "Sec. IV, VI, caption of Fig. 3",
            "the relaxation time must be longer than the interval (once, in Sec. IV, the opposite is printed)",
        ),
        "cumulative drive": Item("Eq. 11, Fig. 3c", "the cumulative drive should be about 1"),
        "no fine tuning": Item(
            "Sec. IV", "the rule of the drive needs no fine tuning: accuracy is kept over a typically fivefold range"
        ),
        "rate rule": Item("Sec. IV", "learning rates about a hundredth of 1 / (dt S sqrt N)"),
        "density": Item("Fig. 4", "all connections: 90.28 % at 50 %, 85.42 % at 30 %, 77.78 % at 20 %"),
        "optimum": Item("Fig. 4", "50 % is the optimum"),
        "interlayer": Item("Fig. 4", "between layers 20 % suffice without losing accuracy: 87.22 %"),
        "intralayer": Item("Fig. 4", "within layers 10 % suffice"),
        "without intralayer": Item("Fig. 4", "without connections within layers it is degraded and remains high"),
        "without interlayer": Item("Sec. V", "without connections between layers nothing is learned"),
        "variability": Item("Fig. 4", "runs vary more at higher densities"),
        "overfitting": Item(
            "Fig. 5", "the gap between training and test, of accuracy and of loss, falls with the density"
        ),
        "size": Item("Sec. V", "96 neurons and 2,896 synapses"),
        "energy": Item("Sec. V", "about 40 pJ an image"),
        "mismatch": Item("Sec. V", "in the loop up to about 20 % of mismatch are tolerated"),
        "off-chip": Item(
            "Sec. V", "recent methods have made off-chip training robust enough to train physical networks"
        ),
    },
)
