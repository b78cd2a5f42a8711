"""What `ray up` sends to the machines, and what a person has not filled in yet."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error, warning
from mlim_ray.pipelines.doctor.roles import PLACEHOLDER, POLICIES

_STAY_AT_HOME = (".venv", "runs", ".git")


def check_placeholders(cluster: ClusterFile) -> Iterator[Finding]:
    """Each value that is still to be filled in, once, where it is written first."""
    told = set()
    for key, value in _strings(cluster.written):
        if PLACEHOLDER in value and value not in told:
            told.add(value)
            yield error(key, f"{value} is not filled in", "see the prerequisites that the top of the file names")
    if cluster.kind == "aws":
        for name in POLICIES:
            path = cluster.path.parent / name
            if path.exists() and PLACEHOLDER in path.read_text(encoding="utf-8"):
                yield error(str(path), "its bucket is not filled in", "name the bucket of metadata.fill_in.storage")


def check_mounts(cluster: ClusterFile) -> Iterator[Finding]:
    """Files that are sent exist, the token is nobody else's to read, and gigabytes stay at home."""
    mounts = cluster.full.get("file_mounts") or {}
    for remote, local in mounts.items():
        if PLACEHOLDER in local:
            continue
        path = cluster.project / Path(local).expanduser()
        if remote.endswith("/.ray/auth_token"):
            yield from check_token(path)
        elif not path.exists():
            what = f"{local} does not exist, and `ray up` stops there"
            yield error("file_mounts", what, "make it as the prerequisites say")
    excluded = {pattern.strip("/") for pattern in cluster.full.get("rsync_exclude") or []}
    missing = [name for name in _STAY_AT_HOME if name not in excluded]
    if "." in mounts.values() and missing:
        yield warning("rsync_exclude", f"{', '.join(missing)} would be sent to every machine", "name them there")
    key = (cluster.full.get("auth") or {}).get("ssh_private_key")
    if key and PLACEHOLDER not in key and not Path(key).expanduser().exists():
        yield error("auth.ssh_private_key", f"{key} does not exist", "name the key that opens the machines")


def check_token(path: Path) -> Iterator[Finding]:
    """That there is a token, and that nobody else reads it. Ray writes it with the mode that the umask allows."""
    mend = "(umask 077; ray get-auth-token --generate > /dev/null); chmod 600 ~/.ray/auth_token"
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        is_empty = not path.read_text().strip()
    except OSError as problem:
        yield error(str(path), f"the token cannot be read ({type(problem).__name__})", mend)
        return
    if is_empty:
        yield error(str(path), "holds no token", mend)
    if mode & 0o077:
        yield error(str(path), f"others may read the token (mode {mode:04o})", f"chmod 600 {path}")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
