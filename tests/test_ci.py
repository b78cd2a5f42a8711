"""`.ci/run` tries and reports everything, and installs what root lacks; its programs are stand-ins that tell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "tests" / "system-packages.txt").read_text().split()


def run(folder: Path, user: str, installed: list[str], failing: str, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and what programs were called with."""
    log, bin_folder = folder / "log", folder / "bin"
    bin_folder.mkdir()
    programs = {
        "id": f"echo {user}",
        "make": f'echo "make $* $REQUIRE_SYSTEM_TESTS" >> {log}; [ "$1" != "{failing}" ]',
        "apt-get": f'echo "apt-get $*" >> {log}',
        "dpkg-query": f'case " {" ".join(installed)} " in *" ${{@: -1}} "*) echo -n installed;; *) exit 1;; esac',
    }
    for name, line in programs.items():
        (bin_folder / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (bin_folder / name).chmod(0o755)
    given = {name: value for name, value in os.environ.items() if name != "REQUIRE_SYSTEM_TESTS"}
    given |= {"PATH": f"{bin_folder}:{os.environ['PATH']}", **environment}
    done = subprocess.run([ROOT / ".ci" / "run"], env=given, capture_output=True, text=True)
    return done.returncode, done.stdout, log.read_text().splitlines()


@pytest.mark.parametrize("failing", ["", "check", "test", "test-cluster"])
def test_all_three_are_run_and_reported_whatever_fails(tmp_path: Path, failing: str) -> None:
    code, said, calls = run(tmp_path, "0", PACKAGES, failing)
    assert calls == ["make check 1", "make test 1", "make test-cluster 1"]
    assert code == (1 if failing else 0)
    for target in ("check", "test", "test-cluster"):
        assert f"make {target}: {'FAILED' if target == failing else 'passed'}" in said.splitlines()[-1]


def test_root_gets_the_packages_that_are_missing(tmp_path: Path) -> None:
    _, _, calls = run(tmp_path, "0", PACKAGES[2:], "")
    assert calls[0].startswith("apt-get update")
    assert calls[1].startswith("apt-get install -y") and "--no-install-recommends" in calls[1]
    assert calls[1].split()[-2:] == PACKAGES[:2]
    assert calls[2] == "make check 1"


def test_others_install_nothing_and_may_say_that_hosts_are_not_needed(tmp_path: Path) -> None:
    _, _, calls = run(tmp_path, "1000", [], "", REQUIRE_SYSTEM_TESTS="0")
    assert calls == ["make check 0", "make test 0", "make test-cluster 0"]
