"""What a person asked one command to do: the config, and where and how it runs."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from mlim_ray.config.run import PretrainConfig

Config = TypeVar("Config", bound=PretrainConfig, covariant=True)


@dataclass(frozen=True)
class RunRequest(Generic[Config]):
    """One pre-training run or one search, as asked for; nothing has started yet."""

    config: Config
    """what is learned (and searched)"""
    data: str
    """the source: a path, an s3 address, a prepared set, or `generated:NUM_RECORDS`"""
    out: str | None
    """the run folder; None: the next free one below `runs/`"""
    address: str
    """address of a running Ray, or `local` for one of our own"""
    num_workers: int
    """training workers of the run, or of each trial of a search; the most of an elastic run"""
    resume: bool
    """continue what lies in `out`"""
    overwrite: bool
    """replace what lies in `out`"""
    dry_run: bool
    """print the plan and stop"""
    json: bool
    """print the summary as one JSON object, the last line of standard output"""
    dashboard: bool
    """start Ray's dashboard and print its URL"""
    min_workers: int | None = None
    """the fewest workers of an elastic run"""
