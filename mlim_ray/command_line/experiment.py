"""The command lines of the experiments: flags in, a checked `RunRequest` out, before anything starts."""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mlim_ray.command_line.errors import PlainParser
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs, add_shorthand, apply_knobs, given_text
from mlim_ray.config.files import MOST_BYTES, parse_config, parse_yaml
from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.prepare import SOURCES
from mlim_ray.config.recipes import RECIPES, with_recipe
from mlim_ray.config.run import PretrainConfig, SearchRunConfig
from mlim_ray.config.wording import shown
from mlim_ray.data import storage
from mlim_ray.data.contact import check_readable, check_writable
from mlim_ray.pipelines.request import RunRequest

DEFAULT_DATA = "generated:10000"

Config = TypeVar("Config", bound=PretrainConfig)


def parse_pretrain(
    argv: Sequence[str] | None,
    build: Callable[[], Config],
    description: str | None = None,
    shorthands: Mapping[str, str] | None = None,
    *,
    recipes: bool = False,
) -> RunRequest[Config]:
    """The request of one pre-training run, or of an experiment that consists of some.

    Args:
        argv: the arguments after the program's name; None takes them from the running program.
        build: makes the experiment's own config, which the flags and `--config` are laid over.
        description: what `--help` says first, usually the experiment's docstring.
        shorthands: further flags, with the knob that each stands for.
        recipes: whether the experiment takes `--recipe`.

    Raises:
        ValueError: one plain line, for any flag or combination that cannot be.
    """
    base = build()
    parser, group = _parser(base, description)
    _add_config(group)
    if recipes:
        _add_recipe(group)
    for flag, knob in (shorthands or {}).items():
        add_shorthand(group, type(base), flag, knob, base)
    group.add_argument(
        "--workers",
        metavar="W",
        default="1",
        help="training workers: a number, or FEWEST-MOST for an elastic run (default 1)",
    )
    add_shorthand(group, type(base), "--steps", "train.num_steps", base)
    parsed = parser.parse_args(argv)
    check_readable(parsed.out)
    config = apply_knobs(_configured(parsed, base), parsed)
    min_workers, num_workers = _workers(parsed.workers)
    _check_workers(num_workers, config)
    return _request(config, parsed, num_workers, min_workers)


def parse_search(
    argv: Sequence[str] | None, build: Callable[[], SearchRunConfig], description: str | None = None
) -> RunRequest[SearchRunConfig]:
    """The request of one search; arguments and errors as for `parse_pretrain`."""
    base = build()
    parser, group = _parser(base, description)
    _add_config(group)
    _add_recipe(group)
    add_shorthand(group, type(base), "--trials", "search.num_trials", base)
    add_shorthand(group, type(base), "--max-samples", "search.max_samples", base)
    add_shorthand(group, type(base), "--workers-per-trial", "search.workers_per_trial", base)
    add_shorthand(group, type(base), "--score", "search.score", base)
    add_shorthand(group, type(base), "--confirm", "search.confirm", base)
    add_shorthand(group, type(base), "--price-per-hour", "search.price_per_hour", base)
    add_shorthand(group, type(base), "--mlflow", "search.mlflow", base)
    group.add_argument(
        "--space",
        metavar="S",
        help="what is varied beside the defaults: a YAML file of names and ranges, or the same as --search.space, such "
        "as train.weight-decay=0..0.3,recon.target=whole,policy=mam",
    )
    parsed = parser.parse_args(argv)
    check_readable(parsed.out)
    config = apply_knobs(_with_space(_configured(parsed, base), parsed.space), parsed)
    num_workers = config.search.workers_per_trial
    _check_workers(num_workers, config, "--workers-per-trial")
    return _request(config, parsed, num_workers)


def _with_space(base: SearchRunConfig, space: str | None) -> SearchRunConfig:
    """The config with what `--space` says, a YAML file or entries."""
    if space is None:
        return base
    if space.endswith((".yaml", ".yml")):
        check_readable(space)
        content = parse_yaml(storage.read_bytes(space, MOST_BYTES + 1), space)
        entries = [f"{name}={_as_text(what)}" for name, what in content.items()]
    else:
        entries = [entry.strip() for entry in space.split(",")]
    try:
        return with_knobs(base, {"search.space": entries})
    except ValueError as error:
        raise ValueError(f"--space: {str(error).removeprefix('search.space: ')}") from error


def _as_text(what: object) -> str:
    """A range or value of a YAML file as it is written in an entry."""
    if isinstance(what, list):
        return "|".join(map(_as_text, what))
    return {True: "true", False: "false"}[what] if isinstance(what, bool) else str(what)


def add_address_flags(group: argparse._ActionsContainer) -> None:
    """The flags that every command which starts or joins Ray has."""
    group.add_argument(
        "--address",
        metavar="A",
        help="address of a running Ray to join, or local for one of its own (default: RAY_ADDRESS if set, else local)",
    )
    group.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard")


def address_of(parsed: argparse.Namespace) -> str:
    """The Ray address asked for: the flag, else RAY_ADDRESS, else `local`.

    Raises:
        ValueError: the address is empty, or `auto`, which would join whatever Ray runs on the machine.
    """
    name = "RAY_ADDRESS" if parsed.address is None else "--address"
    address = (os.environ.get("RAY_ADDRESS") or "local") if parsed.address is None else parsed.address
    if address == "auto" or not address.strip():
        raise ValueError(
            f"{name}: given {shown(address)}, expected an address such as 10.0.0.5:6379, or local; "
            "name the Ray to join, or use local for one of its own"
        )
    return str(address)


def _parser(base: PretrainConfig, description: str | None) -> tuple[PlainParser, argparse._ArgumentGroup]:
    parser = PlainParser(
        usage="%(prog)s [--flag VALUE ...]",
        description=description,
        formatter_class=WholeWordHelp,
        epilog="Flags may come in any order; every knob may also be written with _ for -.",
    )
    group = parser.add_argument_group("run", "Where the run gets its records and leaves its results.")
    group.add_argument(
        "--data",
        metavar="SOURCE",
        help=f"{SOURCES} (default {DEFAULT_DATA})",
    )
    group.add_argument("--out", metavar="DIR", help="run folder, local or s3:// (default: the next free one in runs/)")
    add_shorthand(group, type(base), "--seed", "train.seed", base)
    add_shorthand(group, type(base), "--feed", "feed.kind", base)
    add_shorthand(group, type(base), "--init-from", "model.init_from", base)
    add_address_flags(group)
    group.add_argument("--resume", action="store_true", help="continue the run in --out")
    group.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config and the plan, and stop before anything starts",
    )
    group.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_knobs(parser, type(base), base)
    return parser, group


def _request(
    config: Config, parsed: argparse.Namespace, num_workers: int, min_workers: int | None = None
) -> RunRequest[Config]:
    if parsed.resume and parsed.overwrite:
        raise ValueError("--resume and --overwrite are both given, expected at most one; leave one out")
    if parsed.resume and parsed.out is None:
        raise ValueError("--resume: given no run folder, expected one to continue; name it with --out DIR")
    data = _not_empty("--data", _data(parsed))
    out = None if parsed.out is None else _not_empty("--out", parsed.out)
    init_from = config.model.init_from
    if init_from is not None and out is not None and parsed.overwrite:
        _check_apart(init_from, out)
    check_readable(data, config.prepare.image_folder, config.prepare.tokenizer, init_from)
    if not parsed.dry_run:
        check_writable(out)
    return RunRequest(
        config=config,
        data=data,
        out=out,
        address=address_of(parsed),
        num_workers=num_workers,
        resume=parsed.resume,
        overwrite=parsed.overwrite,
        dry_run=parsed.dry_run,
        json=parsed.json,
        dashboard=not parsed.no_dashboard,
        min_workers=min_workers,
    )


def _add_config(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--config", metavar="FILE", help="config.yaml of a run or best.yaml of a search to start from")


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"start from a setting after another paper: {', '.join(RECIPES)}; mlim-ray recipes tells of each "
        "(default mlim)",
    )


def _configured(parsed: argparse.Namespace, base: Config) -> Config:
    """What the flags are laid over: the experiment's own or a recipe's, that of a run to be resumed, or a file's."""
    recipe = getattr(parsed, "recipe", None)
    if recipe is not None:
        try:
            base = with_recipe(base, recipe)
        except ValueError as error:
            raise ValueError(f"--recipe: {error}") from error
    base = _resumed(parsed, base)
    if parsed.config is None:
        return base
    return _load(_not_empty("--config", parsed.config), base, given_text(parsed, "model.size"))


def _resumed(parsed: argparse.Namespace, base: Config) -> Config:
    """The config that a run to be resumed was started with; flags are laid over it, and must agree with it."""
    if not (parsed.resume and parsed.out) or not storage.exists(storage.join(parsed.out, "config.yaml")):
        return base
    return _load(storage.join(parsed.out, "config.yaml"), base)


def _load(path: str, base: Config, size_override: str | None = None) -> Config:
    check_readable(path)
    return parse_config(storage.read_bytes(path, MOST_BYTES + 1), path, base, size_override)


def _data(parsed: argparse.Namespace) -> str:
    """The source asked for; a run to be resumed remembers its own."""
    if not (parsed.resume and parsed.out):
        return parsed.data if parsed.data is not None else DEFAULT_DATA
    path = storage.join(parsed.out, "environment.json")
    if not storage.exists(path):
        return parsed.data if parsed.data is not None else DEFAULT_DATA
    before = str(json.loads(storage.read_bytes(path))["data"])
    if parsed.data is not None and parsed.data != before:
        raise ValueError(
            f"--data: given {shown(parsed.data)}, and the run in {parsed.out} was started with {shown(before)}; "
            "leave --data out, or start a new run with another --out"
        )
    return before


def _workers(text: str) -> tuple[int | None, int]:
    """The fewest workers of an elastic run, None for another, and the most."""
    match = re.fullmatch(r"(?:([0-9]{1,9})-)?([0-9]{1,9})", text)
    least, most = (int(match[1]) if match[1] else None, int(match[2])) if match else (None, 0)
    if most < 1 or (least is not None and not 1 <= least <= most):
        raise ValueError(
            f"--workers: given {shown(text)}, expected a whole number of at least 1, or a range such as 1-4; leave it "
            "out for the default, 1"
        )
    return least, most


def _check_workers(num_workers: int, config: PretrainConfig, workers_flag: str = "--workers") -> None:
    """More workers than lanes or records of a batch would leave some without work."""
    for limit, name, flag in (
        (config.feed.num_lanes, "lanes of the feed", "--feed.num-lanes"),
        (config.train.batch_size, "records of a batch", "--train.batch-size"),
    ):
        if num_workers > limit:
            raise ValueError(
                f"{workers_flag}: given {num_workers}, expected at most {limit}, the {name}; use fewer or raise {flag}"
            )


def _check_apart(init_from: str, out: str) -> None:
    """What is to be replaced must not hold what the new run starts from."""
    if f"{storage.absolute(init_from)}/".startswith(f"{storage.absolute(out)}/"):
        raise ValueError(
            f"--init-from: {shown(init_from)} lies in --out {shown(out)}, which --overwrite would remove; choose "
            "another --out"
        )


def _not_empty(flag: str, text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{flag}: given {shown(text)}, expected a path or an address; write {flag} PATH")
    return text
