"""Substrates in a file: they come back as they were, or a sentence says why not."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    DEVICE,
    Backpropagation,
    ContinuousTimeRecurrentNetwork,
    EchoStateNetwork,
    EnergySubstrate,
    EquilibriumPropagation,
    HopfieldNetwork,
    Imperfections,
    JosephsonMixer,
    NoiseAware,
    Noisy,
    PhaseOscillators,
    QuantizedPerceptron,
    ReLUReservoir,
    SpikingNetwork,
    SpinTorqueReservoir,
    SpintronicNetwork,
    Substrate,
    WithInput,
    WithReadout,
    evolve,
    load,
    make_members,
    save,
)
from morphax.learning.objectives import regression
from morphax.quantum.measurement import PhotonNumbers, Quadratures
from morphax.substrates.quantized import NoisyPerceptron
from morphax.substrates.topology import Topology

KEY = jax.random.key(2)


class Settings(NamedTuple):
    name: str
    numbers: tuple


def square(x):
    return x**2


class Cell(Substrate):
    """A user's class, in a file."""

    gain: jax.Array = eqx.field(metadata=DEVICE)
    curve: object = eqx.field(static=True, default=square)

    def initial_state(self, *, key=None):
        return jnp.zeros_like(self.gain)

    def step(self, state, drive, *, key=None):
        return self.curve(state + self.gain * drive)  # pyright: ignore[reportCallIssue]

    def observe(self, state, *, key=None):
        return state


class Outer:
    class Inner(Cell):
        """Inside another class."""


def oscillators():
    return PhaseOscillators.all_to_all(2, 3, 1, bias_scale=0.3, key=KEY)


STORED = {
    "josephson": lambda: JosephsonMixer.two_mode(measured=4, shots=10),
    "josephson, Fock states": lambda: JosephsonMixer.two_mode(measured=PhotonNumbers(), levels=3, kerr=0.01),
    "josephson, quadratures": lambda: JosephsonMixer.two_mode(measured=Quadratures(resolution=50)),
    "spintronic": lambda: SpintronicNetwork.random((3, 2), key=KEY),
    "ctrnn": lambda: ContinuousTimeRecurrentNetwork.random((3, 2), key=KEY),
    "echo-state": lambda: EchoStateNetwork.random(4, key=KEY),
    "relu": lambda: ReLUReservoir.random(4, key=KEY),
    "spin-torque": lambda: SpinTorqueReservoir.random(4, key=KEY),
    "phase-oscillators": oscillators,
    "hopfield": lambda: HopfieldNetwork.random((2, 3, 2), key=KEY),
    "quantized": lambda: QuantizedPerceptron.random((3, 4, 4, 2), width=0.4, strength=1.0, key=KEY),
    "noisy perceptron": lambda: NoisyPerceptron.random((3, 4, 2), noise=0.3, key=KEY),
    "spiking": lambda: SpikingNetwork.random(4, 3, key=KEY),
    "spiking, Poisson inputs": lambda: SpikingNetwork.random(4, 3, input_rate=0.3, key=KEY),
    "layers": lambda: WithReadout.random(WithInput.random(Noisy(oscillators(), 0.1), 3, key=KEY), 2, key=KEY),
    "ensemble": lambda: make_members(
        lambda k: WithReadout.random(SpintronicNetwork.random((3, 2), key=k), 2, key=k), KEY, 3
    ),
    "class of a user": lambda: WithReadout.random(Cell(jnp.ones(3)), 2, key=KEY),
    "class in a class": lambda: Outer.Inner(jnp.ones(3), jnp.tanh),
    "functions": lambda: [Cell(jnp.ones(1), curve) for curve in (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, abs, square)],
    "rules": lambda: [
        NoiseAware(Backpropagation(regression), Imperfections(0.1)),
        EquilibriumPropagation(strength=0.2),
    ],
    "keys": lambda: {"one": jax.random.key(3), "more": jax.random.split(KEY, 2), "rbg": jax.random.key(1, impl="rbg")},
    "what Python has": lambda: [
        1,
        -2.5,
        float("inf"),
        1 + 2j,
        "x",
        None,
        True,
        (1, (2,)),
        {"a": 1, "b": [3]},
        {2: "two"},
    ],
    "named tuple": lambda: Settings("x", (1, 2.0)),
    "arrays": lambda: [np.arange(3), np.ones((2, 0)), np.float32(2), jnp.array(True), jnp.ones(2, jnp.bfloat16)],
}


def content(tree):
    """Leaves and structure, static fields included; random keys as their numbers."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.random.key_data(x) if _is_key(x) else x for x in leaves], structure


def _is_key(x) -> bool:
    return eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def assert_same(one, other):
    (ours, structure), (theirs, again) = content(one), content(other)
    assert structure == again
    for a, b in zip(ours, theirs, strict=True):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
            assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        else:
            assert (type(a), a) == (type(b), b)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_everything_comes_back_as_it_was(tmp_path, name):
    tree = STORED[name]()
    again = load(save(tmp_path / "some" / "where", tree))
    assert_same(again, tree)
    assert type(again) is type(tree)


@pytest.mark.parametrize("name", ["josephson", "phase-oscillators", "layers", "quantized"])
def test_in_double_precision_too_and_single_refuses_it(tmp_path, name):
    single = STORED[name]()
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, single)
        path = save(tmp_path / "file", double)
        assert_same(load(path), double)
        assert_same(load(save(tmp_path / "single", single)), single)
    with pytest.raises(ValueError, match=r"holds float64 numbers; load it within jax.enable_x64\(True\)"):
        load(path)


def test_what_is_loaded_works_and_keeps_its_kind(tmp_path):
    network = STORED["layers"]()
    again = load(save(tmp_path / "file", network))
    assert isinstance(again, EnergySubstrate)
    drives = jax.random.normal(KEY, (2, 3))
    np.testing.assert_array_equal(evolve(again, drives, key=KEY)[0], evolve(network, drives, key=KEY)[0])


def test_topologies_are_made_of_their_arguments():
    for topology in (Topology.all_to_all(2, 2, 1), Topology.lattice((3, 3), inputs=[4, 0], outputs=[8, 2])):
        again = Topology(**topology.constructor_arguments())
        assert again == topology
        np.testing.assert_array_equal(again.edges, topology.edges)
        np.testing.assert_array_equal(again.inputs, topology.inputs)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = save(tmp_path / "file", Cell(jnp.ones(2)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lambda"):
        save(path, Cell(jnp.zeros(2), lambda x: x))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert b"lambda" not in before
    structure = json.loads(zipfile.ZipFile(path).read("structure.json"))
    assert structure["tree"]["fields"]["curve"]["object"]["name"] == "square"


def local():
    def inside(x):
        return x

    class Local(Cell):
        pass

    return inside, Local


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Cell(jnp.ones(2), lambda x: x),
            r"Cell\.curve is .*<lambda>, a lambda; only what can be imported is stored",
        ),
        (lambda: Cell(jnp.ones(2), local()[0]), r"Cell\.curve is local.<locals>.inside, defined inside a function"),
        (lambda: local()[1](jnp.ones(2)), r"^Local is local.<locals>.Local, defined inside a function"),
        (lambda: Cell(jnp.ones(2), "text".count), r"Cell\.curve is str\.count, without a name"),
        (lambda: Cell(jnp.ones(2), jax.jit(square)), r"Cell\.curve is not what .*square names \(a method of an object"),
        (lambda: Cell(jnp.ones(2), {1, 2}), r"Cell\.curve is a set, which has no stored form"),
        (
            lambda: WithReadout(Noisy(Cell(jnp.ones(1), lambda x: x), 0.0), np.ones((1, 1)), np.zeros(1)),
            r"WithReadout\.substrate\."
            r"substrate\.curve is <lambda>",
        ),
        (lambda: [np.array(["a", None])], r"list\[0\] is an array of object"),
    ],
)
def test_what_has_no_name_is_refused_naming_the_field(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "file", make())
    assert not (tmp_path / "file").exists()


# Classes that are not what they were.

DEVICE_FILE = """
import equinox as eqx, jax, jax.numpy as jnp
from morphax import DEVICE, WEIGHT, Substrate

class Lamp(Substrate):
    brightness: jax.Array = eqx.field(metadata=DEVICE)
    {field}

    def initial_state(self, *, key=None):
        return jnp.zeros(1)

    def step(self, state, drive, *, key=None):
        return state + self.brightness * drive

    def observe(self, state, *, key=None):
        return state
"""
GAIN = "gain: jax.Array = eqx.field(metadata=WEIGHT, default_factory=lambda: jnp.ones(2))"
WRITE = """
import importlib.util, sys, jax.numpy as jnp
specification = importlib.util.spec_from_file_location("anywhere", sys.argv[1])
module = importlib.util.module_from_spec(specification)
sys.modules["anywhere"] = module
specification.loader.exec_module(module)
from morphax import WithReadout, save
save(sys.argv[2], WithReadout(module.Lamp(jnp.array([0.5])), jnp.ones((1, 1)), jnp.zeros(1)))
"""


@pytest.fixture(scope="module")
def lamp(tmp_path_factory) -> tuple[Path, Path, str]:
    """A class in a file that is no module, stored by another process."""
    folder = tmp_path_factory.mktemp("lamp")
    source, stored = folder / "lamp.py", folder / "lamp.morphax"
    source.write_text(DEVICE_FILE.format(field=GAIN))
    environment = {**os.environ, "JAX_ENABLE_X64": "0"}
    subprocess.run([sys.executable, "-c", WRITE, str(source), str(stored)], check=True, env=environment)
    return source, stored, source.read_text()


@pytest.fixture
def changed(lamp):
    """Write another class into the file; afterwards it is as it was."""
    source, stored, text = lamp

    def change(field):
        source.write_text(DEVICE_FILE.format(field=field))
        return stored

    yield change
    source.write_text(text)


@pytest.mark.slow
def test_a_class_from_a_file_is_found_there_and_stored_again_as_such(lamp, tmp_path):
    source, stored, _ = lamp
    again = load(stored)
    assert type(again.substrate).__name__ == "Lamp"
    np.testing.assert_allclose(evolve(again, jnp.ones(2))[0], [[0.5], [1.0]])
    assert type(load(stored).substrate) is type(again.substrate)  # loaded once
    once_more = save(tmp_path / "again", again)
    structure = json.loads(zipfile.ZipFile(once_more).read("structure.json"))
    assert structure["tree"]["fields"]["substrate"]["class"]["file"] == str(source)
    assert_same(load(once_more), again)


def test_a_file_that_has_changed_is_refused_unless_one_says_so(changed):
    path = changed(GAIN + "  # brighter")
    with pytest.raises(
        ValueError, match=r"needs Lamp from .*lamp\.py, which has changed since it was stored; load\(..., "
    ):
        load(path)
    assert load(path, changed=True).substrate.brightness == 0.5


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("", "holds a Lamp of another time: the class has no gain any more"),
        (GAIN.replace("gain", "glow"), "the class has no gain any more and has glow besides"),
        (GAIN + "; more: int = 1", "the class has more besides"),
        (GAIN.replace("WEIGHT", "DEVICE"), "a Lamp whose gain has the role weight; the class says device now"),
        ("pass\nclass Bulb: pass\ndel Lamp", r"needs Lamp, which .*lamp\.py does not have"),
    ],
)
def test_a_class_with_other_fields_or_roles_is_refused_by_name(lamp, tmp_path, field, message):
    """The file that says so is another one, so that the class is read anew."""
    _, stored, text = lamp
    source = tmp_path / "lamp.py"
    source.write_text(DEVICE_FILE.format(field=field) if "del" not in field else text + "\ndel Lamp\n")
    path = retold(stored, tmp_path / "file", lambda name: {**name, "file": str(source)})
    with pytest.raises(ValueError, match=message):
        load(path, changed=True)


def test_a_file_that_is_gone_or_does_not_run_is_told(lamp, tmp_path):
    _, stored, _ = lamp
    path = retold(stored, tmp_path / "file", lambda name: {**name, "file": str(tmp_path / "nowhere.py")})
    with pytest.raises(ValueError, match=r"needs Lamp from .*nowhere\.py, which is not there"):
        load(path)
    (tmp_path / "nowhere.py").write_text("import a_module_that_nobody_has")
    with pytest.raises(ValueError, match="cannot be imported: No module named 'a_module_that_nobody_has'"):
        load(path, changed=True)


def retold(stored: Path, path: Path, tell) -> Path:
    """A copy whose inner class has another name."""
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if name == "structure.json":
                structure = json.loads(text)
                inside = structure["tree"]["fields"]["substrate"]
                inside["class"] = tell(inside["class"])
                text = json.dumps(structure).encode()
            target.writestr(name, text)
    return path


# Files that are damaged, or that want something else.


def crafted(path: Path, tree, **content) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("structure.json", json.dumps({"format": 1, "tree": tree, **content}))
    return path


@pytest.mark.parametrize(
    "tree",
    [
        {"named": {"module": "os", "name": "mkdir"}, "parts": ["{path}"]},
        {"made": {"module": "os", "name": "mkdir"}, "arguments": {"dict": [["path", "{path}"]]}},
        {"class": {"module": "os", "name": "mkdir"}, "fields": {"path": "{path}"}, "roles": {}},
        {"made": {"module": "pathlib", "name": "Path"}, "arguments": {"dict": []}},
    ],
)
def test_nothing_that_a_file_names_is_called(tmp_path, tree):
    folder = tmp_path / "made"
    path = crafted(tmp_path / "file", json.loads(json.dumps(tree).replace("{path}", str(folder))))
    with pytest.raises(ValueError, match=r"needs .*, which is no class that can be stored"):
        load(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"array": 0, "numpy": True, "type": "float32"}, "is no file of morphax.save, or is damaged"),
        ({"unknown": 1}, "is no file of morphax.save, or is damaged"),
        (
            {"class": {"module": "morphax", "name": "Nothing"}, "fields": {}, "roles": {}},
            "needs Nothing, which morphax ",
        ),
        ({"object": {"module": "no_such_module", "name": "f"}}, r"needs no_such_module\.f, which cannot be imported"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        load(crafted(tmp_path / "file", tree))


def test_another_format_is_told(tmp_path):
    with pytest.raises(ValueError, match="has format 2; this morphax reads format 1"):
        load(crafted(tmp_path / "file", None, format=2))


def test_a_damaged_file_is_refused_or_nothing_is_lost(tmp_path):
    network = SpintronicNetwork.random((2, 2), key=KEY)
    whole = save(tmp_path / "file", network).read_bytes()
    damaged, refused = tmp_path / "damaged", 0
    cuts = [whole[:length] for length in (0, 10, len(whole) // 2, len(whole) - 1)]
    places = np.random.default_rng(0).integers(0, len(whole), 60)
    flips = [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in places]
    for index, content in enumerate([*cuts, b"no archive", *flips]):
        damaged.write_bytes(content)
        try:
            again = load(damaged)
        except ValueError as error:
            assert "is no file of morphax.save, or is damaged" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert index > len(cuts)
            assert_same(again, network)  # dates and the like say nothing
    assert refused > 40


def test_a_file_that_is_not_there_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
