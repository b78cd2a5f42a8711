"""A database that studies are kept in instead of a journal file: any that SQLAlchemy has a driver for."""

import os

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from mlim_ray.pipelines.failures import one_line

PASSWORD = "MLIM_RAY_STORAGE_PASSWORD"
"""environment variable with the password that the URL must not hold: the run folder tells the URL to everybody"""
_SQLITE_WAITS_S = 60.0
_DRIVERS = {"postgresql": "'psycopg[binary]'", "mysql": "mysqlclient"}


def open_database(url: str) -> RDBStorage:
    """The database at `url`, its tables made if they are not there.

    Raises:
        ValueError: it cannot be reached, or there is no driver for it.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(
            f"--search.storage: {url} is no address of a database; expected one such as sqlite:////data/studies.db or "
            "postgresql://user@host/name"
        ) from error
    password = os.environ.get(PASSWORD)
    kind = parsed.get_backend_name()
    if password and kind != "sqlite":
        parsed = parsed.set(password=password)
    # A connection that a restarted server has dropped is made anew.
    options = {"pool_pre_ping": True, "connect_args": {"timeout": _SQLITE_WAITS_S} if kind == "sqlite" else {}}
    try:
        return RDBStorage(parsed.render_as_string(hide_password=False), engine_kwargs=options)
    except (ImportError, ArgumentError) as error:
        raise ValueError(_no_driver(url, parsed)) from error
    except (StorageInternalError, SQLAlchemyError, RuntimeError) as error:
        raise ValueError(
            f"--search.storage: {url} cannot be used: {plain_cause(error)}; check the address and that its server "
            f"runs, and give its password in {PASSWORD}"
        ) from error


def plain_cause(error: BaseException) -> str:
    """What a storage's error says itself, in one line, without what SQLAlchemy and Optuna put around it."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return one_line(getattr(error, "orig", None) or error)


def _no_driver(url: str, parsed: URL) -> str:
    name = parsed.get_backend_name()
    mend = f"pip install {_DRIVERS[name]}" if name in _DRIVERS else "install one that SQLAlchemy knows"
    return f"--search.storage: there is no driver for {url} here; {mend}"
