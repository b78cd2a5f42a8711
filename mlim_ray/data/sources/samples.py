"""Samples of a WebDataset shard: the members beside each other that share a name up to the first point."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from mlim_ray.data.rejection import Problem, Reason, shorten
from mlim_ray.data.sources.tar_members import read_members

MOST_MEMBERS = 256
"""of a sample; more are taken for an archive that is no WebDataset"""


@dataclass
class Sample:
    """One sample: where the content of each of its members lies in the shard."""

    key: str
    start: int
    """byte at which its first header begins"""
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    """extension in lower case, all after the first point: first byte and number of bytes"""
    problem: Problem | None = None


def read_samples(file: BinaryIO, path: str, num_bytes: int | None, start: int = 0) -> Iterator[Sample]:
    """The samples of the open shard `path` from byte `start` on; errors and reading between as `read_members`.

    A member without an extension, or hidden by a leading point, belongs to none. A link, a device or a name
    that leads out of the archive makes its sample one with a problem.
    """
    sample: Sample | None = None
    for member in read_members(file, path, num_bytes, start):
        key, extension = _parts(member.name)
        if not extension and member.problem is None:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, member.start)
        if member.problem is not None:
            detail = f"{shorten(member.name, 100)} is {member.problem}"
            sample.problem = sample.problem or Problem(Reason.PATH_OUTSIDE_FOLDER, detail)
        elif extension in sample.members:
            detail = f"two members {shorten(f'{key}.{extension}', 100)}"
            sample.problem = sample.problem or Problem(Reason.MALFORMED_ROW, detail)
        elif len(sample.members) == MOST_MEMBERS:
            detail = f"more than {MOST_MEMBERS} members {shorten(key, 100)}"
            sample.problem = sample.problem or Problem(Reason.MALFORMED_ROW, detail)
        else:
            sample.members[extension] = (member.data, member.num_bytes)
    if sample is not None:
        yield sample


def _parts(name: str) -> tuple[str, str]:
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return (posixpath.join(folder, stem), extension.lower()) if stem else (name, "")
