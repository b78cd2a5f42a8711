"""What a person sees: progress lines, tables, the JSON summary."""

import io
import json
import re

import pytest

from mlim_ray.reporting.progress import Stage, Stages, say_json, table, table_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_stage_leaves_one_line_when_it_ends() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 0.0, 4.0, 4.0])
    with Stage("train", 2000, "steps", stream=stream, clock=lambda: next(seconds)) as stage:
        for done in range(100, 2001, 100):
            stage.advance(done, data_wait_ratio=0.031, loss=2.5)
        assert stream.getvalue() == ""
    assert stream.getvalue() == "train: 2,000 steps in 4.0 s, 500 steps/s, data wait 3%\n"


def test_the_live_line_has_rate_eta_and_data_wait() -> None:
    seconds = iter([0.0, 10.0])
    stage = Stage("train", 2000, "steps", stream=io.StringIO(), clock=lambda: next(seconds))
    stage.advance(500, data_wait_ratio=0.25, loss=2.34567)
    assert stage.line() == "train: 500 of 2,000 steps, 50 steps/s, ETA 30.0 s, data wait 25%, loss 2.346"


def test_what_an_earlier_run_did_does_not_count_in_the_rate() -> None:
    seconds = iter([0.0, 10.0])
    stage = Stage("train", 2000, "steps", already_done=1000, stream=io.StringIO(), clock=lambda: next(seconds))
    stage.advance(1100)
    assert "1,100 of 2,000 steps, 10 steps/s, ETA 1:30 min" in stage.line()


def test_a_stage_without_a_known_total_has_no_eta() -> None:
    seconds = iter([0.0, 100.0])
    stage = Stage("read", None, "records", stream=io.StringIO(), clock=lambda: next(seconds))
    stage.advance(250)
    assert stage.line() == "read: 250 records, 2.5 records/s"


def test_a_terminal_sees_the_stage_live_and_keeps_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Stage("train", 10, "steps", stream=stream) as stage:
        stage.advance(5)
    shown = stream.getvalue()
    assert "train: 5 of 10 steps, " in shown
    assert shown.rpartition("\x1b[2K")[2].startswith("train: 5 of 10 steps in ")


def test_a_stage_that_fails_leaves_the_screen_to_the_error() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError), Stage("train", 10, "steps", stream=stream):
        raise ValueError("one plain line")
    assert stream.getvalue() == ""


def test_stages_follow_one_another_one_line_each() -> None:
    stream = io.StringIO()
    with Stages("records", stream=stream) as stages:
        stages.advance("read", 5)
        stages.advance("read", 10)
        stages.advance("write", 8, 8)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("read: 10 records in") and second.startswith("write: 8 records in")


def test_a_stage_counts_nothing_until_it_is_told_how_far_it_is() -> None:
    stream = io.StringIO()
    with Stages("steps", stream=stream) as stages:
        stages.begin("retrieval")
        stages.begin("pairs")
        stages.advance("pairs", 0, 20)
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"retrieval: \d\.\d s", first) and second.startswith("pairs: 0 of 20 steps in")


def test_a_table_fits_80_columns_and_keeps_every_number() -> None:
    rows = [
        {
            "trial": 0,
            "policy": "the paper's setting, never stopped early",
            "score": 0.43215678,
            "probe_top1": 0.5,
        },
        {"trial": 11, "policy": "light only [bold]", "score": 12345.6, "probe_top1": None},
    ]
    text = table_text(rows)
    assert all(len(line) <= 80 for line in text.splitlines())
    words = text.split()
    assert {"0.4322", "1.235e+04", "0.5", "-", "[bold]", "trial", "11"} <= set(words)
    wide = table_text([{f"a_long_column_{i}": "some words here" for i in range(9)}])
    assert all(len(line) <= 80 for line in wide.splitlines())


def test_the_table_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    table([{"a": 1}])
    out, err = capsys.readouterr()
    assert out.split()[0] == "a" and out.split()[-1] == "1" and err == ""


def test_the_json_summary_is_one_line_of_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"steps": 3, "probe": {"mlm_paired": float("nan"), "gaps": (1.0, float("inf"))}})
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    assert json.loads(out) == {"steps": 3, "probe": {"mlm_paired": None, "gaps": [1.0, None]}}
