"""A mistake of the user is one line and an exit code; a bug keeps its traceback."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlim_ray.command_line.errors import PlainParser, plain_errors
from mlim_ray.config import IndependentConfig


def outcome(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and standard error of an entry point that raises `error`."""

    @plain_errors()
    def entry() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        entry()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1
    return left.value.code, err[:-1]


class TooMany(ValueError):
    exit_code = 3


class RemoteError(Exception):
    """As a remote worker's error arrives: its own one in `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("remote\n  traceback")
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("a: given 1,\n  expected 2"), 2, "a: given 1, expected 2"),
        (ValueError(), 2, "ValueError"),
        (TooMany("12 of 100 rejected"), 3, "12 of 100 rejected"),
        (RemoteError(TooMany("from afar")), 3, "from afar"),
        (
            FileNotFoundError(2, "No such file", "here/x.yaml"),
            2,
            "here/x.yaml: no such file or folder; check the path",
        ),
        (FileNotFoundError("s3://b/k"), 2, "s3://b/k: no such file or folder; check the path"),
        (PermissionError(13, "no", "x"), 2, "x: permission denied; check who may read or write there"),
        (IsADirectoryError(21, "no", "x"), 2, "x: is a folder, expected a file"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("stopped; go on with --resume"), 130, "stopped; go on with --resume"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_mistake_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(error, capsys) == (code, line)


def test_a_refused_config_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        IndependentConfig(image_ratio=2.0, text_ratio=3.0)
    code, line = outcome(refused.value, capsys)
    assert code == 2 and line == "image_ratio: given 2.0, expected less than or equal to 1 (and 1 more)"


@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), OSError(28, "No space left on device")])
def test_a_bug_passes_through(error: Exception) -> None:
    with pytest.raises(type(error)), plain_errors():
        raise error


def parser() -> PlainParser:
    made = PlainParser(prog="tool")
    made.add_argument("--masking.text-ratio")
    made.add_argument("--data")
    made.add_argument("--json", action="store_true")
    return made


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--dat", "x"], "--dat: unknown flag; did you mean --data?"),
        (
            ["--masking.text_ratoi=3"],
            "--masking.text_ratoi: unknown flag; did you mean --masking.text-ratio?",
        ),
        (["--text-ratio", "3"], "--text-ratio: unknown flag; did you mean --masking.text-ratio?"),
        (["--zzz"], "--zzz: unknown flag; see tool --help"),
        (["--data"], "--data: given no value, expected one; write --data VALUE"),
        (["--data", "--json"], "--data: given no value, expected one; write --data VALUE"),
        (["stray"], "stray: not expected here; options are given as flags, see tool --help"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_without_usage(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError) as refused:
        parser().parse_args(argv)
    assert str(refused.value) == line
    assert capsys.readouterr() == ("", "")


def test_flags_may_be_spelt_with_underscores_and_take_negative_values() -> None:
    parsed = parser().parse_args(["--masking.text_ratio", "-1e-3", "--data", "-.5", "--json"])
    assert parsed == argparse.Namespace(**{"masking.text_ratio": "-1e-3", "data": "-.5", "json": True})


ROOT = Path(__file__).resolve().parents[2]


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (["prepare", "source"], 2, "missing OUT; see mlim-ray prepare --help"),
        (
            ["prepare", "a", "b", "--max-tokens", "x"],
            2,
            "--max-tokens: given x, expected a whole number from 3 to 512",
        ),
        (["inspect", "a", "--txt-column", "t"], 2, "--txt-column: unknown flag; did you mean --text-column?"),
        (["--help"], 0, ""),
    ],
)
def test_the_real_program_answers_without_loading_what_does_the_work(argv: list[str], code: int, line: str) -> None:
    done = python("-m", "mlim_ray.command_line.main", *argv)
    answers_quickly(done, code, line)


def test_an_experiment_refuses_without_loading_what_does_the_work() -> None:
    program = (
        "from mlim_ray.command_line.errors import plain_errors\n"
        "from mlim_ray.command_line.experiment import parse_search\n"
        "from mlim_ray.config import SearchRunConfig\n"
        "with plain_errors(): parse_search(None, SearchRunConfig)"
    )
    done = python("-c", program, "--trials", "none")
    answers_quickly(done, 2, "--trials: given none, expected a whole number of at least 1")


def answers_quickly(done: subprocess.CompletedProcess[str], code: int, line: str) -> None:
    told = [text for text in done.stderr.splitlines() if not text.startswith("import time:")]
    assert done.returncode == code
    assert len(told) == (1 if line else 0) and (not line or told[0].startswith(line))
    loaded = {text.rpartition("|")[2].strip().partition(".")[0] for text in done.stderr.splitlines()}
    assert "mlim_ray" in loaded and not loaded & {"torch", "ray", "transformers", "rich"}


def test_a_program_whose_output_is_read_no_further_says_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mlim_ray.command_line.main", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


def test_another_broken_pipe_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenPipeError), plain_errors():
        raise BrokenPipeError
