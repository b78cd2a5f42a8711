"""Reads TensorBoard's event files back, record by record as TensorBoard does: tensorboardX only writes them."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

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
