"""A command as a person gives it, by how it ends and what it says."""

from __future__ import annotations

import pytest

from mlim_ray.command_line.main import main


def ended(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, list[str]]:
    """Exit code and lines of standard output of a command that has nothing to say on standard error."""
    try:
        main([*map(str, argv)])
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    assert err == ""
    return code, out.splitlines()
