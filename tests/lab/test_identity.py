"""What decides a piece's numbers: the fields that are read, the source that is imported, and nothing else."""

import gc
import importlib.util
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import pytest

import morphax.cli  # a module that imports many others
from morphax import BaseConfig, parameter
from morphax.lab.identity import noting_fields, source_of


class Config(BaseConfig):
    rate: float = parameter(1.0, "a rate")
    points: int = parameter(10, "points")
    seeds: int = parameter(3, "repetitions", extent=True)

    def twice(self) -> float:
        return 2 * self.rate

    @cached_property
    def thrice(self) -> float:
        return 3 * self.rate


ALL = {"seed", "precision", "rate", "points", "seeds"}


def in_threads(read):
    """In threads that know nothing of who started them."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda _: read(), range(3)))


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (lambda config: config.rate, {"rate"}),
        (lambda config: config.twice(), {"rate"}),
        (lambda config: config.model_copy(update={"rate": 2.0}).points, {"points"}),
        (lambda config: config.extents(), set()),
        (lambda config: config.model_dump(), ALL),
        (lambda config: dict(config), ALL),
        (lambda config: hash(config), ALL),
        (lambda config: config == Config(), ALL),
        (lambda config: in_threads(lambda: config.rate), {"rate"}),
        (lambda config: vars(config)["rate"], ALL),
        (repr, ALL),
        (str, ALL),
        (lambda config: config.thrice, {"rate"}),
        (lambda config: config.model_copy(update={"points": 20}).thrice, {"rate"}),
    ],
)
def test_fields_that_are_read_are_noted(read, fields):
    config, found = Config(), set()
    with noting_fields(found):
        read(config)
    assert found == fields
    read(config)
    assert found == fields


def test_a_property_that_is_kept_depends_on_what_it_read_whoever_asked_first():
    config, outside, inside = Config(), set(), set()
    assert config.thrice == 3.0
    with noting_fields(outside):
        assert config.thrice == 3.0
        with noting_fields(inside):
            assert config.thrice == 3.0
    assert outside == inside == {"rate"}
    assert config.model_copy(update={"rate": 2.0}).thrice == 6.0
    assert config == Config()
    assert hash(config) == hash(Config())


def test_extents_are_those_that_are_marked():
    assert Config.extents() == {"seeds"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody else: `lab.work` needs `lab.physics`, and `lab` hands on much more."""
    folder = tmp_path / "foreignlab"
    folder.mkdir()
    texts = {
        "__init__": "from foreignlab.physics import rate\nfrom foreignlab.other import unused\n",
        "physics": "from . import constants\ndef rate(): return constants.ONE\n",
        "constants": "ONE = 1\n",
        "other": "unused = 0\n",
        "late": "def later(): return 1\n",
        "work": """
            import json
            from foreignlab import rate
            from morphax.units import ns
            def run():
                from foreignlab import late
                return late.later() * rate() * ns
            """,
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    source_of.cache_clear()
    yield folder
    for name in [name for name in sys.modules if name.startswith("foreignlab")]:
        del sys.modules[name]
    source_of.cache_clear()


def changed(path, module: str) -> str:
    """The digest of a module after a line was added to a file."""
    from morphax.lab import identity

    path.write_text(path.read_text() + "# another line\n")
    source_of.cache_clear()
    identity._sources.clear()
    return source_of(module)


def test_the_source_is_that_of_all_that_is_imported_and_of_nothing_else(package):
    importlib.import_module("foreignlab.work")
    before = source_of("foreignlab.work")
    assert source_of("foreignlab.work") == before
    assert changed(package / "other.py", "foreignlab.work") == before
    for name in ("work", "physics", "constants", "late"):
        now = changed(package / f"{name}.py", "foreignlab.work")
        assert now != before, name
        before = now


def test_a_single_file_takes_along_what_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("two = 2\n")
    (tmp_path / "alone.py").write_text("import helper\nfrom morphax import SpintronicNetwork\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.spec_from_file_location("alone", tmp_path / "alone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "alone", module)
    spec.loader.exec_module(module)
    before = source_of("alone")
    assert changed(tmp_path / "helper.py", "alone") != before
    del sys.modules["helper"]


@pytest.mark.slow
def test_sources_are_read_by_several_threads_at_once():
    from morphax.lab import identity

    def give_way(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(give_way)  # threads change where garbage is collected, also in the middle of parsing
    gc.set_threshold(50)
    identity._sources.clear()
    try:
        with ThreadPoolExecutor(4) as threads:
            digests = list(threads.map(source_of.__wrapped__, [morphax.cli.__name__] * 4))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(give_way)
    assert len(set(digests)) == 1


def test_what_is_typed_in_is_like_nothing_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "typed", type(sys)("typed"))
    first = source_of("typed")
    source_of.cache_clear()
    assert source_of("typed") != first
