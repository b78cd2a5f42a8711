"""This machine and the storage: what commands need wherever they run."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlim_ray.data import storage
from mlim_ray.data.contact import check_writable
from mlim_ray.pipelines.doctor.finding import Diagnosis, Finding, error, warning
from mlim_ray.pipelines.doctor.sent_files import check_token
from mlim_ray.pipelines.doctor.versions import pins

_MOVING_TOGETHER = ("ray", "torch", "transformers", "s3fs", "aiobotocore", "botocore", "optuna", "pyarrow", "numpy")
"""packages whose versions decide what runs and checkpoints are"""
_SHM = Path("/dev/shm")
_LEAST_SHM_BYTES = 1 << 30
_LEAST_DISK_BYTES = 10 << 30


def check_machine(project: Path) -> Diagnosis:
    """Python, packages against constraints.txt, the token's file, room in memory and on the disk."""
    diagnosis = Diagnosis(list(_packages(project)))
    token = Path("~/.ray/auth_token").expanduser()
    if token.exists():
        diagnosis.findings += check_token(token)
    for folder, least, mend in (
        (_SHM, _LEAST_SHM_BYTES, "give it more: a container takes --shm-size"),
        (Path(tempfile.gettempdir()), _LEAST_DISK_BYTES, "make room, or set TMPDIR"),
    ):
        if folder.is_dir():
            free = shutil.disk_usage(folder).free
            diagnosis.facts.append(f"{folder}: {free / 2**30:.1f} GiB free")
            if free < least:
                diagnosis.findings.append(warning(str(folder), f"has only {free / 2**30:.1f} GiB free", mend))
    return diagnosis


def check_launcher() -> Iterator[Finding]:
    """What `ray up` needs here for AWS."""
    try:
        importlib.metadata.version("boto3")
    except importlib.metadata.PackageNotFoundError:
        yield error(
            "this machine", "has no boto3, without which `ray up` stops", "pip install -c constraints.txt '.[aws]'"
        )
    for program in ("ssh", "rsync"):
        yield from check_program(program)


def check_program(program: str) -> Iterator[Finding]:
    """That a program which `ray up` calls is here."""
    if shutil.which(program) is None:
        yield error("this machine", f"has no {program}, which `ray up` calls", f"install {program}")


def check_storage(place: str) -> Diagnosis:
    """Write a small object below the place and remove it; the answer of a server that is down comes within seconds."""
    if not storage.is_remote(place):
        return Diagnosis([error(place, "is not in S3, and no disk is shared by the nodes", "name s3://bucket/prefix")])
    try:
        check_writable(place)
    except ValueError as problem:
        what, _, mend = str(problem).rpartition("; ")
        return Diagnosis([error(place, what or mend, mend if what else "see docs/s3.md")])
    return Diagnosis(facts=[f"storage: {place} can be written and cleaned up"])


def _packages(project: Path) -> Iterator[Finding]:
    pinned = pins(project)
    for name in _MOVING_TOGETHER:
        try:
            version = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield error("this machine", f"has no {name}", "make setup")
            continue
        if pinned.get(name, version) != version:
            yield warning("this machine", f"has {name} {version}, constraints.txt {pinned[name]}", "make setup")
