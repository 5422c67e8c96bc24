"""What Dudas et al. show and say."""

from morphax.lab.paper import Item, Paper

DUDAS = Paper(
    authors="J. Dudas, E. Plouet, A. Mizrahi, J. Grollier, D. Marković",
    title="Quantum reservoir neural network implementation on a Josephson mixer",
    published="preprint (2022), whose text was read; as npj Quantum Information 9, 64 (2023) under another title",
    link="https://doi.org/10.1038/s41534-023-00734-4",
    items={
        "rotating wave": Item("Eqs. 5, 6", "a pump at the difference of frequencies leaves photon conversion alone"),
        "printed port": Item(
            "Sec. VI A", "the printed collapse operator, one port for both modes, with kappa of Sec. III"
        ),
        "lifetime": Item(
            "Sec. III", "populations depend on previous inputs as long as an input is shorter than the lifetime"
        ),
        "levels": Item(
            "Sec. VI A", "20e5 sqrt(Hz) populates five levels of each oscillator, and none above the seventh"
        ),
        "quarter drive": Item("Sec. VI A", "Mackey-Glass takes a quarter of the drive"),
        "nonlinear": Item("Sec. IV A", "the points cannot be linearly separated, and those of +-1 need memory"),
        "16 states": Item(
            "Secs. III, IV A, Fig. 3b",
            "at kappa = 2 pi x 17, 21 MHz 16 measured populations classify points of sines and squares to 99.5 %, "
            "RMSE 0.003",
        ),
        "9 states": Item(
            "Secs. III, IV A, Fig. 3c", "9 measured populations do so to 99.5 %, a little noisier, RMSE 0.017"
        ),
        "classical neurons": Item(
            "Sec. IV A, Fig. 4", "40 static or 24 dynamic classical neurons are needed for 99.5 %, RMSE 0.003"
        ),
        "equivalent": Item("Sec. V", "16 measured states are equivalent to 24 classical oscillators"),
        "single step": Item("Sec. VI B", "a memory of a single step is enough for this task"),
        "unmeasured states": Item("Sec. IV A", "all 49 populated states take part, though they are not measured"),
        "superposition": Item("Sec. IV A", "the advantage comes from quantum superposition"),
        "repeated": Item("Sec. IV A", "measurements need to be repeated multiple times"),
        "fewer states": Item("Secs. IV A, V", "a much smaller number of states is measured than of classical neurons"),
        "logarithmic error": Item(
            "Sec. IV B, Fig. 5b, c",
            "overall logarithmic increase of the Mackey-Glass error with the delay, in all the cases",
        ),
        "saturation": Item("Sec. IV B", "and it saturates for large delays"),
        "range": Item("Sec. IV B", "since the reservoir learns the range of the points, and where most of them are"),
        "oscillation": Item("Sec. IV B", "in all the figures it oscillates, with twice the periodicity of the data"),
        "extrema": Item("Sec. IV B", "since data is easier to predict at minima and maxima than at the slopes"),
        "dissipation": Item("Fig. 5b", "more dissipation, more error"),
        "shorter memory": Item("Sec. IV B", "and with more dissipation it increases faster"),
        "coupling": Item("Fig. 5c", "less coupling, more error"),
        "populated by coupling": Item("Sec. IV B", "strong coupling populates more basis states"),
        "classical forecast": Item(
            "Sec. IV B", "50 classical dynamical or 400 virtual neurons forecast similarly well"
        ),
        "64 neurons": Item("Secs. I, V", "up to 8 states are populated in each of two oscillators: up to 64 neurons"),
        "ten oscillators": Item("Sec. I", "10 oscillators give 3 billion neurons"),
        "quadratures": Item(
            "Sec. V",
            "basis states give more memory, fewer measurements and fewer physical devices than two quadratures (Kerr)",
        ),
    },
)
