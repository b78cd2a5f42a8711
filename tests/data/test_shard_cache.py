"""Shards kept on the node's disk: whole or not at all, within a limit, for any number of processes at once."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mlim_ray.config import FeedConfig
from mlim_ray.data import row_groups, shard_cache, storage
from mlim_ray.data.manifest import StoredFile
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.shard_cache import IN_USE_S, ShardCache
from tests.prepared_sets import source_records, write_prepared

ROOT = Path(__file__).resolve().parents[2]
LONG_AGO_S = 3 * IN_USE_S


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> None:
    """Forget what this process knows of copies and folders."""
    row_groups.open_shard.cache_clear()
    for known in (shard_cache._hashed, shard_cache._damaged_there, shard_cache._failed, shard_cache._full_until):
        known.clear()


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(str(tmp_path / "cache"), 10_000)


def write_source(folder: Path, number: int, num_bytes: int = 1_000) -> tuple[str, StoredFile]:
    """A file that stands for a shard in S3."""
    content = bytes([number]) * num_bytes
    path = folder / f"{number}.parquet"
    path.write_bytes(content)
    return str(path), StoredFile(path=path.name, num_bytes=num_bytes, sha256=storage.sha256_of(content))


def copy_of(cache: ShardCache, source: str, shard: StoredFile) -> bytes | None:
    copy = cache.open(source, shard)
    if copy is None:
        return None
    with copy:
        return copy.read()


def kept(cache: ShardCache) -> set[str]:
    """What lies in the cache, its locks aside."""
    return {name for name in os.listdir(cache.folder) if not name.endswith(".lock")}


def age(cache: ShardCache, shard: StoredFile, seconds: float) -> None:
    path = cache._path(shard)
    read_at = os.stat(path).st_mtime - seconds
    os.utime(path, (read_at, read_at))


def test_a_shard_is_fetched_once_into_a_folder_of_this_user_alone(tmp_path: Path, cache: ShardCache) -> None:
    source, shard = write_source(tmp_path, 1)
    assert copy_of(cache, source, shard) == b"\1" * 1_000
    os.remove(source)
    assert copy_of(cache, source, shard) == b"\1" * 1_000
    assert kept(cache) == {f"{shard.sha256}.parquet"}
    assert os.stat(cache.folder).st_mode & 0o777 == 0o700


def test_the_longest_not_read_leave_first_and_their_readers_read_on(tmp_path: Path, cache: ShardCache) -> None:
    shards = [write_source(tmp_path, number, 3_000) for number in range(5)]
    readers = [cache.open(*each) for each in shards[:3]]
    for (_, shard), seconds in zip(shards, (2, 4, 3), strict=False):
        age(cache, shard, seconds * IN_USE_S)
    copy_of(cache, *shards[0])
    assert copy_of(cache, *shards[3]) == b"\3" * 3_000
    assert kept(cache) == {f"{shards[number][1].sha256}.parquet" for number in (0, 2, 3)}
    assert copy_of(cache, *shards[4]) == b"\4" * 3_000
    assert kept(cache) == {f"{shards[number][1].sha256}.parquet" for number in (0, 3, 4)}
    for number, reader in enumerate(readers):
        assert reader is not None
        with reader:
            assert reader.read() == bytes([number]) * 3_000


def test_what_finds_no_room_is_read_where_it_is(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    shards = [write_source(tmp_path, number, 3_000) for number in range(5)]
    huge = write_source(tmp_path, 9, 10_001)
    with caplog.at_level(logging.WARNING):
        # All three were read just now: none of them leaves for a fourth.
        assert [copy_of(cache, *each) is None for each in shards] == [False, False, False, True, True]
        assert copy_of(cache, *huge) is None
    assert len(kept(cache)) == 3
    assert [record.message for record in caplog.records if "no room" in record.message] == caplog.messages
    assert len(caplog.messages) == 1 and "--feed.cache-gib" in caplog.messages[0]


def test_a_part_of_the_disk_stays_free(tmp_path: Path, cache: ShardCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_cache, "KEPT_FREE_RATIO", 1.0)
    assert copy_of(cache, *write_source(tmp_path, 1)) is None and kept(cache) == set()


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_copy_is_fetched_again(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    source, shard = write_source(tmp_path, 1)
    copy_of(cache, source, shard)
    path = Path(cache._path(shard))
    path.write_bytes({"cut": b"\1" * 999, "flipped": b"\1" * 999 + b"\3", "emptied": b""}[damage])
    # Its size is looked at each time, its content when a process first opens it.
    shard_cache._hashed.clear()
    with caplog.at_level(logging.WARNING):
        assert copy_of(cache, source, shard) == path.read_bytes() == b"\1" * 1_000
    assert "damaged on this disk" in caplog.text


def test_a_shard_that_is_damaged_in_s3_is_never_kept(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    source, shard = write_source(tmp_path, 1)
    Path(source).write_bytes(b"\1" * 999 + b"\2")
    with caplog.at_level(logging.WARNING):
        assert copy_of(cache, source, shard) is None and copy_of(cache, source, shard) is None
    assert kept(cache) == set()
    assert len(caplog.messages) == 1 and f"{source} differs from its manifest" in caplog.messages[0]
    os.remove(source)
    shard_cache._damaged_there.clear()
    with pytest.raises(storage.MissingPathError, match=source):
        cache.open(source, shard)


def test_a_disk_that_fails_is_said_once_and_stops_nothing(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    copied, refused = write_source(tmp_path, 1), write_source(tmp_path, 2, 5_000)
    assert copy_of(cache, *copied) is not None
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to write on; the log of the test itself is short.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            assert copy_of(cache, *refused) is None and copy_of(cache, *refused) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caplog.messages) == 1 and "File too large" in caplog.messages[0]
    # What is there already goes on being read.
    assert copy_of(cache, *copied) is not None and len(kept(cache)) == 1


FILLED = """
import logging, sys, threading
from mlim_ray.data.manifest import StoredFile
from mlim_ray.data.shard_cache import ShardCache

cache, shard = ShardCache(sys.argv[1] + "/cache", 10_000_000), StoredFile.model_validate_json(sys.argv[3])
logging.basicConfig(format="%(message)s")

def feed():
    with open(sys.argv[2], "wb") as pipe, open(sys.argv[1] + "/filling", "wb", buffering=0) as filling:
        # The room is found and held. Now somebody else takes the disk.
        try:
            while filling.write(bytes(1 << 16)):
                pass
        except OSError:
            pipe.write(bytes([1]) * shard.num_bytes)

for _ in range(2):
    threading.Thread(target=feed, daemon=True).start()
    assert cache.open(sys.argv[2], shard) is None
"""


def test_a_disk_that_fills_up_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    source, shard = write_source(tmp_path, 1, 600_000)
    os.remove(source)
    os.mkfifo(source)
    mounted = 'mount -t tmpfs -o size=1m tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1" "$4" "$5"'
    ended = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            mounted,
            "sh",
            str(mount),
            sys.executable,
            FILLED,
            source,
            shard.model_dump_json(),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and "No space left on device; shards are read in S3 without a cache" in lines[0], lines


def test_a_folder_that_others_may_write_to_is_not_trusted(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    os.makedirs(cache.folder)
    os.chmod(cache.folder, 0o777)
    source, shard = write_source(tmp_path, 1)
    Path(cache._path(shard)).write_bytes(b"\1" * 1_000)
    with caplog.at_level(logging.WARNING):
        assert copy_of(cache, source, shard) is None
    assert "no folder of this user alone" in caplog.text
    os.rename(cache.folder, tmp_path / "elsewhere")
    os.chmod(tmp_path / "elsewhere", 0o700)
    os.symlink(tmp_path / "elsewhere", cache.folder)
    assert copy_of(cache, source, shard) is None


WRITER = """
import sys
from mlim_ray.data.manifest import StoredFile
from mlim_ray.data.shard_cache import ShardCache
ShardCache(sys.argv[1], 10_000).open(sys.argv[2], StoredFile.model_validate_json(sys.argv[3]))
"""


def test_a_writer_that_is_killed_leaves_nothing_behind(tmp_path: Path, cache: ShardCache) -> None:
    source, shard = write_source(tmp_path, 1, 8_000)
    content = Path(source).read_bytes()
    os.remove(source)
    # A source that gives half and then nothing more.
    os.mkfifo(source)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, cache.place, source, shard.model_dump_json()],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with open(source, "wb") as pipe:
        pipe.write(content[:4_000])
        pipe.flush()
        partial = kept(cache)
        assert len(partial) == 1 and partial.pop().endswith(".partial")
        # It holds its room while it is written: another of this size finds none.
        assert copy_of(cache, *write_source(tmp_path, 2, 3_000)) is None
        writer.kill()
        writer.wait()
    os.remove(source)
    Path(source).write_bytes(content)
    shard_cache._full_until.clear()
    assert copy_of(cache, source, shard) == content
    assert kept(cache) == {f"{shard.sha256}.parquet"}


READER = """
import hashlib, os, random, sys
from pathlib import Path
from mlim_ray.data import shard_cache
from mlim_ray.data.manifest import StoredFile
from mlim_ray.data.shard_cache import ShardCache

place, sources, max_bytes, in_use_s, seed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
shard_cache.IN_USE_S, shard_cache._LOOK_AGAIN_S = in_use_s, 0
cache, draw, inodes = ShardCache(place, max_bytes), random.Random(seed), set()
shards = [StoredFile.model_validate_json(line) for line in (sources / "shards").read_text().splitlines()]
sys.stdin.readline()
for shard in draw.choices(shards, k=150):
    copy = cache.open(str(sources / shard.path), shard)
    if copy is None:
        continue
    with copy:
        inodes.add(f"{shard.path}:{os.fstat(copy.fileno()).st_ino}")
        assert hashlib.sha256(copy.read()).hexdigest() == shard.sha256
    with cache._locked("room"):
        held = [entry.stat().st_size for entry in os.scandir(cache.folder) if not entry.name.endswith(".lock")]
    assert sum(held) <= max_bytes, held
print(*inodes)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("max_bytes", "in_use_s"), [(10_000_000, 3_600), (500_000, 0), (500_000, 3_600)])
def test_processes_at_once_see_whole_shards_within_the_limit(tmp_path: Path, max_bytes: int, in_use_s: int) -> None:
    shards = [write_source(tmp_path, number, 100_000 + number)[1] for number in range(12)]
    (tmp_path / "shards").write_text("".join(shard.model_dump_json() + "\n" for shard in shards))
    arguments = [str(tmp_path / "cache"), str(tmp_path), str(max_bytes), str(in_use_s)]
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, *arguments, str(seed)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    seen: set[str] = set()
    for reader in readers:
        said, told = reader.communicate(timeout=120)
        assert reader.returncode == 0, told
        seen |= set(said.split())
    if max_bytes > 2_000_000:
        # Each was fetched once, whoever came first.
        assert len(seen) == len(shards)
    elif in_use_s:
        # What came first stayed; the rest was read in place.
        assert len({name.split(":")[0] for name in seen}) == 4
    else:
        assert len({name.split(":")[0] for name in seen}) == len(shards)


def test_a_set_read_through_the_cache_is_the_set(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(300))
    cache = ShardCache.of(FeedConfig(cache_gib=0.01, cache_folder=str(tmp_path / "cache")))
    cached = PreparedSet(prepared.path, prepared.manifest, cache)
    assert cached.read("train").equals(prepared.read("train"))
    assert cache is not None and len(kept(cache)) == len(prepared.manifest.splits["train"].shards)
    for shard in prepared.manifest.splits["train"].shards:
        os.remove(Path(prepared.path) / shard.path)
    row_groups.open_shard.cache_clear()
    assert len(cached.read("train")) == 300
    assert prepared.cached(cache) is prepared, "what is local already needs no copy"
    assert ShardCache.of(FeedConfig(cache_gib=0.0)) is None


def test_a_copy_that_is_damaged_while_it_is_read_is_fetched_again(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(300))
    cache = ShardCache(str(tmp_path / "cache"), 10_000_000)
    cached = PreparedSet(prepared.path, prepared.manifest, cache)
    expected = cached.read("train")
    shard = prepared.manifest.splits["train"].shards[0]
    path, content = Path(cache._path(shard)), (Path(prepared.path) / shard.path).read_bytes()
    with path.open("r+b") as file:
        file.seek(5_000)
        file.write(bytes(1_000))
    assert cached.read("train").equals(expected) and path.read_bytes() == content
    with path.open("r+b") as file:
        file.truncate(2_000)
    assert cached.read("train").equals(expected) and path.read_bytes() == content


def test_a_row_group_that_is_damaged_in_s3_is_named_through_the_cache_too(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(300))
    shard = prepared.manifest.splits["train"].shards[0]
    path = Path(prepared.path) / shard.path
    content = bytearray(path.read_bytes())
    content[5_000:5_100] = bytes(100)
    path.write_bytes(content)
    cache = ShardCache(str(tmp_path / "cache"), 10_000_000)
    rest = PreparedSet(prepared.path, prepared.manifest, cache).read("train", skips_damaged=True)
    assert rest.equals(prepared.read("train", skips_damaged=True)) and len(rest) == 300 - 64
    with pytest.raises(DamagedShardError, match=f"{path}, row group 0: "):
        PreparedSet(prepared.path, prepared.manifest, cache).read("train")
