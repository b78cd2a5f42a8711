"""What a search tries, how long, and how it stops the weak."""

from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from mlim_ray.config.base import Section
from mlim_ray.config.score import Objective, parse_score
from mlim_ray.config.space import parse_entries

NUM_ARMS = 4
"""Trials that are confirmed: the best two, the paper's setting and light-only masking."""


class SearchConfig(Section):
    """The space, score and budget of a search (our choice throughout; the paper reports no search)."""

    num_trials: int = Field(12, ge=1)
    """trials, the four references included"""
    max_samples: int = Field(16_000, ge=1)
    """records that one full trial sees"""
    num_rungs: int = Field(3, ge=1, le=8)
    """points at which trials are compared, the last one at max_samples"""
    stop_early: bool = True
    """stop trials that fall behind at a rung (ASHA); the references always run to the end"""
    reduction_factor: int = Field(3, ge=2)
    """one in so many trials passes a rung (ASHA)"""
    space: tuple[str, ...] = ()
    """what is varied beside or instead of the defaults: NAME=LOW..HIGH, NAME=LOW..HIGH:log, NAME=ONE|OTHER, or
    NAME=VALUE, which fixes it; names are those of the default space and of any knob of resolution, mlm, recon, itm,
    itc, balance, model and train"""
    score: str = "probe"
    """what ranks trials, lower is better: probe, mlm, recon, linear_picture, linear_with_title, a sum such as
    0.7*mlm+0.3*recon, or several with commas for the front of those that none beats in all"""
    sampler: Literal["tpe", "random"] = "tpe"
    """how new trials are proposed: by Optuna's TPE, or at random"""
    confirm: bool = True
    """run the best two and two references again with fresh seeds, and name a winner only with its interval"""
    num_confirm_seeds: int = Field(3, ge=2)
    """fresh seeds of the confirmation"""
    num_retries: int = Field(2, ge=0)
    """times that a trial whose process ended is started again from its last rung"""
    storage: str | None = None
    """URL of a database for the study, such as postgresql://user@host/name, its password in the environment variable
    MLIM_RAY_STORAGE_PASSWORD; none: a journal file in the run folder"""
    max_concurrent_trials: int = Field(0, ge=0)
    """trials at a time; 0: as many as the CPUs or GPUs allow"""
    gpus_per_trial: float = Field(1.0, ge=0.01, le=1.0)
    """share of a GPU that a trial of one worker takes, and of its memory: 0.25 lets four run on each; without GPUs a
    trial takes a CPU"""
    workers_per_trial: int = Field(1, ge=1)
    """training workers of one trial"""
    price_per_hour: Annotated[float, Field(gt=0.0)] | None = None
    """what an hour of the whole cluster costs, in any currency: the console then tells what is spent; none: it does
    not"""

    mlflow: str | None = None
    """address of an MLflow server, such as http://127.0.0.1:5000, that is told of the search and its trials while they
    go on; name and password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; none: none is"""

    @property
    def rungs(self) -> list[int]:
        """Samples at which trials are compared; the last is the full budget."""
        lowest = max(1, self.max_samples // self.reduction_factor ** (self.num_rungs - 1))
        below = [lowest * self.reduction_factor**level for level in range(self.num_rungs - 1)]
        return [*(rung for rung in below if rung < self.max_samples), self.max_samples]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What `score` says."""
        return parse_score(self.score)

    @field_validator("space")
    @classmethod
    def _space_is_one(cls, space: tuple[str, ...]) -> tuple[str, ...]:
        parse_entries(space)
        return space

    @field_validator("score")
    @classmethod
    def _score_is_known(cls, score: str) -> str:
        parse_score(score)
        return score

    @field_validator("storage")
    @classmethod
    def _storage_tells_no_secret(cls, storage: str | None) -> str | None:
        if storage is not None:
            _check_database(storage)
        return storage

    @field_validator("mlflow")
    @classmethod
    def _server_tells_no_secret(cls, mlflow: str | None) -> str | None:
        if mlflow is not None:
            _check_server(mlflow)
        return mlflow


def _check_database(url: str) -> None:
    """Raise ValueError for an address that is none, or holds a password. What it says must not repeat that."""
    parts = urlsplit(url)
    if not parts.scheme or "://" not in url:
        raise ValueError(
            "it is no URL of a database, expected one such as sqlite:////data/studies.db or postgresql://user@host/name"
        )
    secrets = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if "pass" in name.lower()]
    if parts.password is not None or secrets:
        raise ValueError(
            "the URL holds a password, which config.yaml would tell to everybody; leave it out and set the environment "
            "variable MLIM_RAY_STORAGE_PASSWORD"
        )


def _check_server(url: str) -> None:
    """Raise ValueError for an address that is none, or holds a name or password. What it says must not repeat that."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no address of an MLflow server, expected one such as http://127.0.0.1:5000")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the address holds a name or password, which config.yaml would tell to everybody; leave it out and set the "
            "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
