"""TensorBoard's event files, read back record by record as TensorBoard does."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlim_ray.reporting.event_files import EventFile

_MASK_DELTA = 0xA282EAD8


def masked(data: bytes) -> int:
    """The checksum of TensorFlow's records: a rotated CRC-32C."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def read_events(path: Path) -> list[Event]:
    """The events of a file: length, its checksum, content, its checksum, and so on."""
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        header = data[at : at + 8]
        (size,) = struct.unpack("<Q", header)
        content = data[at + 12 : at + 12 + size]
        assert struct.unpack("<I", data[at + 8 : at + 12]) == (masked(header),)
        assert struct.unpack("<I", data[at + 12 + size : at + 16 + size]) == (masked(content),)
        events.append(Event.FromString(content))
        at += 16 + size
    return events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Points of each curve in a folder, a later start's after an earlier one's."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        for event in read_events(path):
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, round(value.simple_value, 6)))
    return curves


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
