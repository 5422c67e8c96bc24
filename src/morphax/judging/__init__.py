"""What a device can compute, measured: of a simulated one, of a recording, of one on the bench."""

from morphax.judging.capacities import information_processing_capacity as information_processing_capacity
from morphax.judging.dynamics import forgetting_time as forgetting_time, lyapunov_exponents as lyapunov_exponents
from morphax.judging.findings import Finding as Finding, findings as findings
from morphax.judging.judgement import judge as judge, verdict as verdict
from morphax.judging.ranks import (
    consistency as consistency,
    effective_dimension as effective_dimension,
    separation_ranks as separation_ranks,
)
from morphax.judging.recording import Recording as Recording, record as record
from morphax.judging.robustness import withstands as withstands
from morphax.judging.stimulus import stimulus as stimulus
