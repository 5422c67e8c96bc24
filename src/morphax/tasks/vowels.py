"""Who speaks? Nine men and a vowel, as frames of cepstral coefficients."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from morphax.tasks.idx import read_shipped

TRAINING = 270
"""Utterances to train with, the first ones."""


class Utterances(NamedTuple):
    """Utterances of unequal length.

    - `frames`: (utterances, longest, 12), zero behind the end of each.
    - `lengths`: how many frames each has.
    - `speakers`: from 0 to 8.
    """

    frames: Float[np.ndarray, "utterances longest 12"]
    lengths: Int[np.ndarray, " utterances"]
    speakers: Int[np.ndarray, " utterances"]


def japanese_vowels() -> tuple[Utterances, Utterances]:
    """270 utterances to train with, 30 of each speaker, and 370 to test with.

    Source: M. Kudo, J. Toyama and M. Shimbo, Pattern Recognition Letters 20, 1103 (1999); UCI Machine Learning
    Repository.

        >>> from morphax.tasks.vowels import japanese_vowels
        >>> train, test = japanese_vowels()
        >>> train.frames.shape, test.frames.shape, int(test.lengths.max())
        ((270, 29, 12), (370, 29, 12), 29)
    """
    cepstra, lengths, speakers = (
        read_shipped(f"vowels-{kind}") for kind in ("cepstra-idx2-int", "lengths-idx1-ubyte", "speakers-idx1-ubyte")
    )
    lengths, speakers = lengths.astype(int), speakers.astype(int)
    frames = np.zeros((len(lengths), lengths.max(), cepstra.shape[1]))
    there = np.arange(lengths.max()) < lengths[:, None]
    frames[there] = cepstra * 1e-6
    whole = Utterances(frames, lengths, speakers)
    train, test = (Utterances(*(each[part] for each in whole)) for part in (np.s_[:TRAINING], np.s_[TRAINING:]))
    return train, test
