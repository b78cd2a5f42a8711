"""Databases that studies may be kept in, and that no password is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlim_ray.config import SearchConfig
from mlim_ray.config.wording import plain_problem
from mlim_ray.pipelines.search.database import PASSWORD, open_database
from tests.pipelines.search.test_study import SearchStudy, config, run_all, search_study, table


@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cret@host/db", "postgresql+psycopg2://host/db?user=me&password=s3cret", "studies.db"]
)
def test_an_address_with_a_password_or_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        SearchConfig(storage=url)
    key, sentence = plain_problem(refused.value, SearchConfig)  # type: ignore[arg-type]
    assert key == "storage" and "s3cret" not in sentence
    assert PASSWORD in sentence or "no URL" in sentence


@pytest.mark.parametrize("url", ["sqlite:////data/studies.db", "postgresql://me@host:5432/db", "mysql+pymysql://h/db"])
def test_other_addresses_are_taken(url: str) -> None:
    assert SearchConfig(storage=url).storage == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////nowhere/at/all/studies.db", "cannot be used: unable to open database file"),
        ("nothing://me@host/db", "there is no driver for nothing://me@host/db here"),
        ("firebird://me@host/db", "there is no driver for firebird://me@host/db here"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.setenv(PASSWORD, "s3cret")
    with pytest.raises(ValueError, match="^--search.storage: ") as refused:
        open_database(url)
    assert words in str(refused.value) and "s3cret" not in str(refused.value)


def test_a_study_in_a_database_is_the_study_in_a_journal(tmp_path: Path) -> None:
    base = config(num_trials=8)
    expected = search_study(tmp_path, base)
    run_all(expected)
    database = open_database(f"sqlite:///{tmp_path / 'studies.db'}")
    try:
        # Of the first driver a trial is left that it had begun.
        assert SearchStudy(database, base, lambda: None, "one of many").begin() is not None
        study = SearchStudy(database, base, lambda: None, "one of many")
        run_all(study)
        assert table(study) == table(expected)
    finally:
        database.engine.dispose()


def test_a_database_that_fails_stops_the_search_and_fails_no_trial(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    database = open_database(f"sqlite:///{path}")
    study = SearchStudy(database, config(num_trials=8), lambda: None, "one")
    begun = study.unless_stopped(study.begin)
    assert begun is not None
    database.engine.dispose()
    path.write_bytes(b"no database")
    assert study.unless_stopped(study.begin) is None
    assert study.stopped_by == "the study cannot be kept: file is not a database"
