"""A run has one owner (contract C7): a living one is respected, a dead one is not waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlim_ray.data.lease import EXPIRES_S, Lease

HOLD = """
import sys
from mlim_ray.data.lease import Lease
with Lease(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rewrite(tmp_path: Path, **changes: object) -> None:
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_living_owner_is_named_and_respected(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(ValueError, match=f"{tmp_path} is in use by process {holder.pid} "),
        Lease(str(tmp_path)),
    ):
        pass
    assert json.loads((tmp_path / "lease.json").read_text())["pid"] == holder.pid
    holder.communicate("done\n")
    with Lease(str(tmp_path)):
        pass
    assert not (tmp_path / "lease.json").exists()


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_replaced_at_once(tmp_path: Path, holder: subprocess.Popen[str], reaped: bool) -> None:
    holder.kill()
    if reaped:
        holder.wait()
    else:
        # Wait for its end but leave it a zombie, as a parent does that never asks.
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with Lease(str(tmp_path)):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] != holder.pid


def test_one_process_holds_a_folder_once(tmp_path: Path) -> None:
    with Lease(str(tmp_path)), pytest.raises(ValueError, match="in use"), Lease(str(tmp_path)):
        pass


def test_another_process_with_the_owners_number_is_not_the_owner(tmp_path: Path) -> None:
    with Lease(str(tmp_path)):
        rewrite(tmp_path, process_started=1.0)
        with Lease(str(tmp_path)):
            pass


def test_an_owner_on_another_machine_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    with Lease(str(tmp_path)):
        rewrite(tmp_path, host="elsewhere", time=time.time())
        with pytest.raises(ValueError, match="elsewhere"), Lease(str(tmp_path)):
            pass
        rewrite(tmp_path, host="elsewhere", time=time.time() - EXPIRES_S - 1)
        with Lease(str(tmp_path)):
            pass


def test_leaving_does_not_take_the_next_owners_lease(tmp_path: Path) -> None:
    with Lease(str(tmp_path)):
        rewrite(tmp_path, id="of another")
    assert json.loads((tmp_path / "lease.json").read_text())["id"] == "of another"
