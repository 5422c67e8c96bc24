"""morphax: simulate, train and judge physical neural networks.

Five words carry the library. A **substrate** is driven by an input, evolves by its own dynamics and is observed. A
**learning rule** changes it so that what is observed becomes what is wanted. A **task** supplies inputs and targets. An
**experiment** is one of each with numbers filled in, and a set of **claims**: what a paper printed, and what came out.
"""

import importlib.metadata

from morphax.lab.experiment import BaseConfig as BaseConfig
from morphax.lab.experiment import Claim as Claim
from morphax.lab.experiment import Experiment as Experiment
from morphax.lab.experiment import parameter as parameter
from morphax.learning.readout import (
    Reading as Reading,
)
from morphax.learning.readout import (
    Readout as Readout,
)
from morphax.learning.readout import (
    answer as answer,
)
from morphax.learning.readout import (
    fit_readout as fit_readout,
)
from morphax.learning.readout import (
    read_task as read_task,
)
from morphax.pytrees import (
    DEVICE as DEVICE,
)
from morphax.pytrees import (
    WEIGHT as WEIGHT,
)
from morphax.pytrees import (
    count as count,
)
from morphax.pytrees import (
    perturb as perturb,
)
from morphax.pytrees import (
    roles as roles,
)
from morphax.pytrees import (
    select as select,
)
from morphax.substrates.base import Substrate as Substrate
from morphax.substrates.base import evolve as evolve
from morphax.substrates.josephson import JosephsonMixer as JosephsonMixer
from morphax.tasks.base import Task as Task

__version__ = importlib.metadata.version("morphax")
