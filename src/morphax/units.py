"""Units as plain floats: multiply a number by its unit to enter it, divide by the unit to read it.

Convention of the library: **time in ns, angular rates in rad/ns** (spiking neurons: ms, said in their docstrings).
A frequency unit (`MHz`, `GHz`) stands for the *angular* rate of that many cycles, so it carries the factor 2 pi; a
decay rate that was quoted without 2 pi is entered per time, `17 / us`.

    >>> from morphax.units import MHz, us
    >>> round(2 * MHz, 6)          # 2 pi x 2 MHz in rad/ns
    0.012566
    >>> round(17 / us, 6)          # 17 rad/us in rad/ns
    0.017
"""

import math

ns = 1.0
us = 1e3 * ns
ms = 1e6 * ns
s = 1e9 * ns

Hz = 2 * math.pi / s
kHz = 1e3 * Hz
MHz = 1e6 * Hz
GHz = 1e9 * Hz
