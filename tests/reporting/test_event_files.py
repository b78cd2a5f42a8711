"""TensorBoard's event files, read back."""

from __future__ import annotations

from pathlib import Path

from tensorboardX.proto.event_pb2 import SessionLog

from mlim_ray.reporting.event_files import EventFile
from tests.event_reader import read_events, scalars


def test_the_numbers_of_each_line_become_points(tmp_path: Path) -> None:
    events = EventFile(str(tmp_path), 0, "trial-00003-mam")
    events.write(5, {"step": 5, "loss/mlm": 2.5, "data/keys": "ab12", "is_last": False, "loss/recon": float("nan")})
    events.write(10, {"step": 10, "loss/mlm": 2.25, "score": None, "loss/recon": 0.5})
    events.close()
    assert scalars(tmp_path / "tensorboard" / "trial-00003-mam") == {
        "step": [(5, 5.0), (10, 10.0)],
        "loss/mlm": [(5, 2.5), (10, 2.25)],
        "loss/recon": [(10, 0.5)],
    }


def test_a_run_that_goes_on_says_from_which_step_on_its_curves_are_redone(tmp_path: Path) -> None:
    for start_step in (0, 10):
        events = EventFile(str(tmp_path), start_step)
        events.write(start_step + 5, {"loss/mlm": 1.0})
        events.close()
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    assert [event.step for event in read_events(first)] == [0, 5]
    version, restart, line = read_events(second)
    assert version.file_version == "brain.Event:2"
    assert (restart.session_log.status, restart.step, line.step) == (SessionLog.START, 11, 15)


def test_a_flush_shows_what_was_written_while_the_file_is_open(tmp_path: Path) -> None:
    events = EventFile(str(tmp_path), 0)
    events.write(1, {"loss/mlm": 1.0})
    events.flush()
    assert scalars(tmp_path / "tensorboard") == {"loss/mlm": [(1, 1.0)]}
    events.close()
