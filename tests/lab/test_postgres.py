"""A study in a real PostgreSQL server, shared by processes of which some are killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.conftest import postgres_programs

from morphax.files import read_sealed
from morphax.lab.lock import NAME
from morphax.lab.run_folder import open_run

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

BENCH = f"{Path(__file__).with_name('bench.py')}:Bench"
PASSWORD = "sesame"
IMPATIENT = """
import sys
from morphax.cli import main
from morphax.lab import tune

tune.HEARTBEAT, tune.GRACE = 1, 3
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of our own; its address, with name and password."""
    programs, other = postgres_programs(), other_user()
    assert programs is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    # Not the folder of a test: that is closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        if other:
            os.chown(folder, other["user"], other["group"])

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=60, **other)

        secret = Path(folder, "password")
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        call("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        call("pg_ctl", "start", "--wait", "-l", f"{folder}/log", "-o", options)
        try:
            yield f"postgresql://me:{PASSWORD}@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "stop", "--wait", "-m", "fast")


def other_user() -> dict[str, Any]:
    """As whom the server is started, where the tests run as root: it refuses that."""
    if sys.platform == "win32" or os.geteuid():
        return {}
    import pwd

    user = next(user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture
def database(server, request) -> str:
    """The address of a database without tables."""
    name = request.node.name
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return f"{server}/{name}"


def tune(folder: Path, database: str, trials: int, **numbers: object) -> subprocess.Popen[bytes]:
    asked = ["tune", BENCH, "--maximise", "x", "--over", "seed=0:9999", "--storage", database, "--out", str(folder)]
    asked += [f"--trials={trials}", *(f"--set={key}={value}" for key, value in numbers.items())]
    return subprocess.Popen([sys.executable, "-c", IMPATIENT, *asked], stdout=subprocess.DEVNULL)


def assert_no_password_in(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_two_processes_share_a_study(tmp_path, database):
    folders = [tmp_path / name / "out" for name in "ab"]
    processes = [tune(folder, database, 12, count=1, seconds=0.5) for folder in folders]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    own = [len(list((folder.parent / ".pieces").glob("*/[!.]*.nc"))) for folder in folders]
    assert all(own)
    assert sum(own) in (12, 13)  # both may begin the last one
    for folder in folders:
        assert open_run(folder, {}).dataset().sizes["trial"] >= 12  # and so those of the other are among them
        assert "cannot be repeated" in (folder / "report.html").read_text()
    assert_no_password_in(tmp_path)


def test_a_trial_whose_process_was_killed_is_taken_up_again(tmp_path, database):
    numbers = {"count": 1, "deadly": 0, "deaths": 1, "notes": tmp_path}
    assert tune(tmp_path / "a" / "out", database, 2, **numbers).wait(timeout=60) == -signal.SIGKILL
    assert "me:***@127.0.0.1" in read_sealed(tmp_path / "a" / "out" / NAME)["command"]  # a lock stays
    assert_no_password_in(tmp_path)
    assert tune(tmp_path / "b" / "out", database, 2, **numbers).wait(timeout=60) == 0
    with psycopg.connect(database) as connection:
        asked = "select state, param_value from trials join trial_params using (trial_id) order by trial_id"
        dead, *others = connection.execute(asked).fetchall()
    assert dead[0] == "FAIL"
    assert [state for state, _ in others] == ["COMPLETE"] * 2
    assert dead[1] in [seed for _, seed in others]
