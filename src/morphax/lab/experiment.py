"""What an experiment is: a validated configuration, a run, claims fixed beforehand, and figures."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field

from morphax._checks import check_choice
from morphax.lab.progress import Progress

Relation = Literal["within", "at least", "at most", "reported"]


def parameter(default: Any, description: str, *, unit: str = "", **limits: Any) -> Any:
    """A field of an experiment's `Config`: default, description, unit, pydantic's limits (`ge`, `gt`, ...)."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


class BaseConfig(BaseModel):
    """An experiment's numbers: validated, immutable, defaults equal to the paper's (or what replaces them)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    seed: int = parameter(0, "seed of all random numbers", ge=0)
    precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")


@dataclass(frozen=True)
class Claim:
    """What is expected of a result, written down before the run: a paper's number, or a baseline of the same run.

    **Arguments:**

    - `claim`: what is claimed, in a sentence.
    - `paper`: the number the paper printed; or a function of the dataset for a baseline that runs alongside.
    - `ours`: a function of the dataset that gives the number here.
    - `relation`: "within" (|ours - paper| <= tolerance), "at least" (ours >= paper - tolerance), "at most"
      (ours <= paper + tolerance), or "reported": no verdict, a number that the reader should know.
    - `tolerance`: in units of the number, >= 0.
    - `source`: where the paper says so, or what the baseline is.

        >>> import xarray as xr
        >>> from morphax import Claim
        >>> claim = Claim("16 states classify", 0.995, lambda d: d.accuracy.mean(), "at least", 0.0, "Sec. IV A")
        >>> verdict = claim.judge(xr.Dataset({"accuracy": ("seed", [1.0, 0.998])}))
        >>> verdict["ours"], verdict["met"]
        (0.999, True)
    """

    claim: str
    paper: float | Callable[[xr.Dataset], Any] | None
    ours: Callable[[xr.Dataset], Any]
    relation: Relation
    tolerance: float
    source: str

    def __post_init__(self) -> None:
        check_choice("relation", self.relation, ("within", "at least", "at most", "reported"))
        if self.paper is None and self.relation != "reported":
            raise ValueError(f"paper is None in {self.claim!r}; only a claim that is 'reported' has no number to meet")

    def judge(self, dataset: xr.Dataset) -> dict[str, Any]:
        """The claim beside what came out, as it is written to `claims.json`.

        `ours` and `met` are None when the run's configuration left out the point that the claim is about (the dataset
        raises KeyError for it).
        """
        try:
            paper = float(self.paper(dataset)) if callable(self.paper) else self.paper
            ours = float(self.ours(dataset))
        except KeyError:
            paper, ours = None, None
        return {
            "claim": self.claim,
            "paper": paper,
            "ours": ours,
            "tolerance": self.tolerance,
            "relation": self.relation,
            "source": self.source,
            "met": None if paper is None or ours is None or self.relation == "reported" else self._holds(paper, ours),
        }

    def _holds(self, paper: float, ours: float) -> bool:
        # A number that was computed as 1 - 0.005 must still equal a printed 0.995.
        slack = self.tolerance + 1e-12 * abs(paper)
        if self.relation == "within":
            return abs(ours - paper) <= slack
        return ours >= paper - slack if self.relation == "at least" else ours <= paper + slack


class Experiment(ABC):
    """One substrate, one learning rule and one task with numbers filled in, and claims.

    A subclass in `morphax.experiments` (or behind an entry point of the group `morphax.experiments`) needs a name, a
    `Config`, what `--quick` changes, claims, and two methods:

        >>> import jax, numpy as np, xarray as xr
        >>> from matplotlib.figure import Figure
        >>> from morphax import BaseConfig, Claim, Experiment, parameter
        >>> class Pi(Experiment):
        ...     '''Darts at a circle.'''
        ...     name = "demo/pi"
        ...     class Config(BaseConfig):
        ...         darts: int = parameter(100_000, "darts thrown", ge=1)
        ...     quick = {"darts": 1000}
        ...     claims = (Claim("pi", np.pi, lambda d: float(d.pi), "within", 0.05, "Archimedes"),)
        ...     def run(self, config, *, key, progress):
        ...         darts = jax.random.uniform(key, (config.darts, 2))
        ...         return xr.Dataset({"pi": 4 * float((darts**2).sum(1).__lt__(1).mean())})
        ...     def figures(self, dataset):
        ...         return {"pi": Figure()}
        >>> result = Pi().run(Pi.Config(), key=jax.random.key(0), progress=None)
        >>> Pi.claims[0].judge(result)["met"]
        True
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseConfig]] = BaseConfig
    quick: ClassVar[dict[str, Any]] = {}
    claims: ClassVar[tuple[Claim, ...]] = ()

    @abstractmethod
    def run(self, config: Any, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        """The result, with named coordinates and units (`attrs["units"]`). Long work goes through `progress.pieces`."""

    @abstractmethod
    def figures(self, dataset: xr.Dataset) -> dict[str, Figure]:
        """The paper's figures, drawn anew from the dataset alone."""

    def exports(self, dataset: xr.Dataset) -> dict[str, str]:
        """Further files for the run folder: name -> text (say, predictions as CSV)."""
        return {}

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]
