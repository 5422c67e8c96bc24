"""What an experiment is: a validated configuration, a run, claims fixed beforehand, and figures."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, model_validator

from morphax._checks import check_choice, free_memory
from morphax.files import KnownFile
from morphax.lab.errors import UsageError
from morphax.lab.identity import are_noted, note_fields, noting_fields

if TYPE_CHECKING:
    import xarray as xr
    from jaxtyping import PRNGKeyArray

    from morphax.lab.figures import Figures
    from morphax.lab.paper import Paper
    from morphax.lab.progress import Progress

Relation = Literal["within", "at least", "at most", "reported"]
LARGEST = 10**6
"""The largest whole number that a configuration takes where nothing else is said: a slip of the finger is no size."""
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Data: TypeAlias = Path | str | KnownFile
"""A file, the digest of data that are checked when they are read, or what is known of a file."""
FromDataset: TypeAlias = "Callable[[xr.Dataset], Any]"
"""A number that is taken from the result of a run."""
BEYOND = "beyond the paper"
"""The item of a claim that the paper of its experiment does not make."""


class About(TypedDict, total=False):
    """What a judged claim says of itself beside its numbers: see `Claim`."""

    item: str
    cause: str
    proof: Proof | None


def parameter(default: Any, description: str, *, unit: str = "", extent: bool = False, **limits: Any) -> Any:
    """A field of an experiment's `Config`: default, description, unit, pydantic's limits (`ge`, `gt`, ...).

    `extent` marks a number that says how many pieces there are and not what is in them: repetitions, the points of a
    sweep. What was computed for ten of them is reused for twenty. A piece that reads such a field depends on it anyway.
    Whole numbers have a million as upper limit where there is no other.
    """
    if isinstance(default, int) and not isinstance(default, bool) and not {"le", "lt"} & limits.keys():
        limits["le"] = LARGEST
    return Field(default, description=description, json_schema_extra={"unit": unit, "extent": extent}, **limits)


class BaseConfig(BaseModel):
    """An experiment's numbers: validated, immutable, defaults equal to the paper's (or what replaces them).

    While a run goes on it is noted which fields are read: on these its pieces depend (`morphax.lab.store`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    # JAX keeps 32 bits of a seed in single precision.
    seed: int = parameter(0, "seed of all random numbers", ge=0, lt=2**32)
    precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            if any(isinstance(v, bool) for v in (value if isinstance(value, list | tuple) else [value])):
                annotation = cls.model_fields[name].annotation if name in cls.model_fields else bool
                if annotation is not bool:
                    raise ValueError(f"{name} is {json.dumps(value)}; it must be a number")
        return values

    def __getattribute__(self, name: str) -> Any:
        if are_noted():
            cls = type(self)
            if name in cls.model_fields:
                note_fields((name,))
            elif name == "__dict__" or name.startswith("model_dump"):  # so read `vars`, `repr` and `str`
                note_fields(cls.model_fields)
            elif isinstance(found := getattr(cls, name, None), cached_property):
                return self._kept(name, found)
        return super().__getattribute__(name)

    def _kept(self, name: str, found: cached_property[Any]) -> Any:
        """A property that is kept, and what it reads: that counts each time, whoever asked first."""
        inside = super().__getattribute__("__dict__")
        reads = f"read by {name}"
        if reads not in inside:
            with noting_fields(fields := set()):
                inside[name] = found.func(self)
            inside[reads] = fields
        note_fields(inside[reads])
        return inside[name]

    def model_copy(self, **options: Any) -> Self:
        """Like that of pydantic, without properties that were kept; what is copied counts when it is read."""
        with noting_fields(set()):
            copied = super().model_copy(**options)
            inside: dict[str, Any] = vars(copied)
            for name in inside.keys() - type(self).model_fields.keys():
                del inside[name]
        return copied

    def __iter__(self) -> Any:
        note_fields(type(self).model_fields)
        return super().__iter__()

    def __eq__(self, other: object) -> bool:
        note_fields(type(self).model_fields)
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).model_fields)))

    def data(self) -> Mapping[str, Data]:
        """The data that a run reads, by a name for each: their content is part of what is asked.

        A file is given by its path, and has the name of the field that holds it, where one does; in a field with
        several, as FILE or FILE:NAME, "field[place]": so another machine finds it where it was sent. Of data that are
        checked when they are read the digest is given that they must have, or a `KnownFile` where some machines lack
        them.
        """
        return {}

    def memory(self) -> float:
        """Bytes of the largest arrays of a run, within a factor of about three; 0 where nobody has estimated them."""
        return 0.0

    def check_memory(self) -> None:
        """Refuse a run that needs more memory than is free, and name the fields that make it so large."""
        needed, free = self.memory(), free_memory()
        if needed > free:
            named = ", ".join(f"{name} ({json.dumps(getattr(self, name))})" for name in self._heaviest(needed))
            raise UsageError(
                f"a run takes about {readable(needed)} of memory, and {readable(free)} are free; lower {named}"
            )

    def _heaviest(self, needed: float) -> list[str]:
        """The fields with whole numbers without which less than half as much is needed, the heaviest first."""
        least: dict[str, float] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            several = value if isinstance(value, tuple) else (value,)
            if all(isinstance(number, int) and not isinstance(number, bool) for number in several):
                ones = (1,) * len(several) if isinstance(value, tuple) else 1
                least[name] = self.model_copy(update={name: ones}).memory()
        return sorted((name for name in least if least[name] < needed / 2), key=lambda name: least[name])[:3]

    @property
    def bytes_of_number(self) -> int:
        """Of a floating-point number in the precision of the run."""
        return 8 if self.precision == "double" else 4

    @classmethod
    def extents(cls) -> frozenset[str]:
        """The fields that say how many pieces there are."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return frozenset(name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("extent"))


def readable(number: float) -> str:
    """Bytes for people: in MB or GB."""
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.3g} GB"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Why no number can meet a claim, whatever is run.

    **Arguments:**

    - `best`: the number nearest to what is claimed that is possible at all: of a theorem, or, as a function of the
      dataset, a certified bound of the run.
    - `place`: where the proof stands.
    """

    best: float | FromDataset
    place: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is expected of a result, written down before the run: a paper's number, or a baseline of the same run.

    Made by `at_least`, `at_most` or `within`, which are judged, or by `reported`: a number that the reader should know.

    **Arguments:**

    - `text`: what is claimed, in a sentence.
    - `paper`: the number the paper printed; or a function of the dataset for a baseline that runs alongside.
    - `ours`: a function of the dataset that gives the number here.
    - `source`: where the paper says so, or what the baseline is.
    - `tolerance`: in units of the number; below 0 it is how much more than `paper` is asked for (-1e-9: more at all).
    - `item`: which of the items of the experiment's paper it answers, or `BEYOND`; empty where there is no paper.
    - `cause`: why it is not met, and which run supports that; shown where it is not.
    - `proof`: that it cannot be met. Where the best number that is possible does not meet it, it is refuted.

        >>> import xarray as xr
        >>> from morphax import Claim
        >>> claim = Claim.at_least("16 states classify", 0.995, lambda d: d.accuracy.mean(), source="Sec. IV A")
        >>> verdict = claim.judge(xr.Dataset({"accuracy": ("seed", [1.0, 0.998])}))
        >>> verdict["ours"], verdict["met"]
        (0.999, True)
    """

    text: str
    paper: float | FromDataset | None
    ours: FromDataset
    relation: Relation
    source: str
    tolerance: float = 0.0
    item: str = ""
    cause: str = ""
    proof: Proof | None = None

    def __post_init__(self) -> None:
        check_choice("relation", self.relation, ("within", "at least", "at most", "reported"))
        if self.proof is not None and self.relation == "reported":
            raise ValueError(f"proof is given in {self.text!r}; a claim that is only 'reported' cannot be refuted")
        if self.paper is None and self.relation != "reported":
            raise ValueError(f"paper is None in {self.text!r}; only a claim that is 'reported' has no number to meet")

    @classmethod
    def at_least(
        cls,
        text: str,
        paper: float | FromDataset,
        ours: FromDataset,
        *,
        source: str,
        tolerance: float = 0.0,
        **about: Unpack[About],
    ) -> Self:
        """Met when ours >= paper - tolerance."""
        return cls(text=text, paper=paper, ours=ours, relation="at least", source=source, tolerance=tolerance, **about)

    @classmethod
    def at_most(
        cls,
        text: str,
        paper: float | FromDataset,
        ours: FromDataset,
        *,
        source: str,
        tolerance: float = 0.0,
        **about: Unpack[About],
    ) -> Self:
        """Met when ours <= paper + tolerance."""
        return cls(text=text, paper=paper, ours=ours, relation="at most", source=source, tolerance=tolerance, **about)

    @classmethod
    def within(
        cls,
        text: str,
        paper: float | FromDataset,
        ours: FromDataset,
        *,
        source: str,
        tolerance: float,
        **about: Unpack[About],
    ) -> Self:
        """Met when |ours - paper| <= tolerance."""
        return cls(text=text, paper=paper, ours=ours, relation="within", source=source, tolerance=tolerance, **about)

    @classmethod
    def reported(
        cls, text: str, ours: FromDataset, *, source: str, paper: float | FromDataset | None = None, item: str = ""
    ) -> Self:
        """No verdict; `paper` is a number to see beside it, where there is one."""
        return cls(text=text, paper=paper, ours=ours, relation="reported", source=source, item=item)

    def judge(self, dataset: xr.Dataset) -> dict[str, Any]:
        """The claim beside what came out, as it is written to `claims.json`.

        `ours` and `met` are None when the run's configuration left out the point that the claim is about (the dataset
        raises KeyError for it). A number that is NaN or infinite is None, too; then there is no verdict, whatever the
        relation, and `no_verdict` says why. A claim that is not met and, as `proof` says, cannot be, is `refuted`: the
        best number that is possible, and the place of the proof. One that is met against its proof has no verdict.
        """
        paper, ours, why = self._numbers(dataset)
        met = None if paper is None or ours is None or self.relation == "reported" else self._holds(paper, ours)
        refuted = None if paper is None or met is None else self._refuted(paper, dataset)
        if met and refuted:
            met, why = None, f"it is met, and {refuted['best']:.4g} is proved to be the best that is possible"
        verdict = {
            "claim": self.text,
            "paper": paper,
            "ours": ours,
            "tolerance": self.tolerance,
            "relation": self.relation,
            "source": self.source,
            "met": met,
        }
        if met is False:
            verdict |= {"refuted": refuted} if refuted else {"cause": self.cause} if self.cause else {}
        return verdict | ({"item": self.item} if self.item else {}) | ({"no_verdict": why} if why else {})

    def _refuted(self, paper: float, dataset: xr.Dataset) -> dict[str, Any] | None:
        """The best number that is possible, and the proof, where it does not meet the claim."""
        if self.proof is None:
            return None
        best = float(self.proof.best(dataset) if callable(self.proof.best) else self.proof.best)
        return None if _wrong(best) or self._holds(paper, best) else {"best": best, "proof": self.proof.place}

    def _numbers(self, dataset: xr.Dataset) -> tuple[float | None, float | None, str]:
        """The paper's number and ours, None where there is none to compare, and what is wrong with them."""
        try:
            paper = self.paper(dataset) if callable(self.paper) else self.paper
            paper = None if paper is None else float(paper)
            ours = float(self.ours(dataset))
        except KeyError:
            return None, None, ""
        baseline, here = _wrong(paper), _wrong(ours)
        why = here or (f"the baseline is {baseline}" if baseline else "")
        return None if baseline else paper, None if here else ours, why

    def _holds(self, paper: float, ours: float) -> bool:
        # A number that was computed as 1 - 0.005 must still equal a printed 0.995.
        slack = self.tolerance + 1e-12 * abs(paper)
        if self.relation == "within":
            return abs(ours - paper) <= slack
        return ours >= paper - slack if self.relation == "at least" else ours <= paper + slack


def fails(claim: Mapping[str, Any]) -> bool:
    """Whether a judged claim is not met, and could have been."""
    return claim["met"] is False and "refuted" not in claim


def _wrong(value: float | None) -> str:
    """What keeps a number from being compared, and from being written: JSON has neither NaN nor infinity."""
    if value is None or math.isfinite(value):
        return ""
    return "not a number" if math.isnan(value) else "infinite"


def bounded(relation: str, number: str, tolerance: float) -> str:
    """What a claim asks for: "0.3 ± 0.1", "≥ 94 - 3", "≥ 60 + 8" for 8 more than 60, "> 60"."""
    if relation in ("within", "reported"):
        return number + (f" ± {tolerance:.3g}" if tolerance else "")
    least = relation == "at least"
    if -1e-6 <= tolerance < 0:  # asks for more at all
        return f"{'>' if least else '<'} {number}"
    room = -tolerance if least else tolerance
    return f"{'≥' if least else '≤'} {number}" + (f" {'+' if room > 0 else '-'} {abs(room):.3g}" if room else "")


class Experiment(ABC):
    """One substrate, one learning rule and one task with numbers filled in, and claims.

    A subclass in `morphax.experiments`, behind an entry point of that group, or in any file (FILE:CLASS), needs a name,
    a `Config`, what `--quick` changes, claims, and two methods:

        >>> import jax, numpy as np, xarray as xr
        >>> from matplotlib.figure import Figure
        >>> from morphax import BaseConfig, Claim, Experiment, parameter
        >>> class Pi(Experiment):
        ...     '''Darts at a circle.'''
        ...     name = "demo/pi"
        ...     class Config(BaseConfig):
        ...         darts: int = parameter(100_000, "darts thrown", ge=1)
        ...     quick = {"darts": 1000}
        ...     claims = (Claim.within("pi", np.pi, lambda d: d.pi, source="Archimedes", tolerance=0.05),)
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
    paper: ClassVar[Paper | None] = None

    @abstractmethod
    def run(self, config: Any, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        """The result, with named coordinates and units (`attrs["units"]`). Long work goes through `progress.pieces`."""

    @abstractmethod
    def figures(self, dataset: xr.Dataset) -> Figures:
        """The paper's figures, drawn anew from the dataset alone."""

    @property
    def origin(self) -> type[Experiment]:
        """The class whose source decides the numbers: of a sweep that of what is swept."""
        return type(self)

    def asks(self) -> dict[str, Any]:
        """What is asked beside the configuration, as JSON: of a sweep its axes."""
        return {}

    def judge(self, dataset: xr.Dataset) -> list[dict[str, Any]]:
        """The claims beside what came out, as they are written to `claims.json`."""
        return [claim.judge(dataset) for claim in self.claims]

    def verdict(self, dataset: xr.Dataset) -> dict[str, list[str]]:
        """What came out, in sentences, by what they are about: they stand first on the page and the terminal.

        One that begins with "Warning: " is shown as such.
        """
        return {}

    def tables(self, dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
        """Further tables of the page, by their captions: a dict a row, all with the same keys."""
        return {}

    def exports(self, dataset: xr.Dataset) -> Mapping[str, str | bytes]:
        """Further files for the run folder: name -> content (say, predictions as CSV)."""
        return {}

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]
