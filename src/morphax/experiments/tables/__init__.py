"""Tables of the reader's own: what a device makes of one, beside what is used for tables elsewhere."""

from morphax.experiments.tables.fit import Fit as Fit
