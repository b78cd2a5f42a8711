"""`mlim-ray recipes`: the settings that `--recipe` knows, with their sources, costs and what is unknown of each."""

import argparse
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.config.recipes import RECIPES, Recipe
from mlim_ray.config.wording import shown

_WIDTH = 118


def add_recipes_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "recipes",
        usage="%(prog)s [--json]",
        help="list the settings after other papers that --recipe of an experiment takes",
        description="List the settings that --recipe of experiments/pretrain.py and tune_mam.py takes: what each hides "
        "and learns from, its source, its cost, its knobs, and what is unknown or otherwise here.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.set_defaults(run=_recipes)


def _recipes(parsed: argparse.Namespace) -> None:
    from mlim_ray.reporting.progress import say, say_json

    if parsed.json:
        say_json({name: {**asdict(recipe), "knobs": dict(recipe.knobs)} for name, recipe in RECIPES.items()})
        return
    for recipe in RECIPES.values():
        for line in _lines(recipe):
            say(line)


def _lines(recipe: Recipe) -> Iterator[str]:
    knobs = " ".join(f"--{name.replace('_', '-')} {shown(value)}" for name, value in recipe.knobs.items())
    yield recipe.name
    parts = {
        "after": recipe.source,
        "what": recipe.about,
        "cost": recipe.cost,
        "knobs": knobs or "none",
        "unknown or otherwise here": "; ".join(recipe.differs),
    }
    for name, text in parts.items():
        if text:
            yield textwrap.fill(
                f"{name}: {text}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
                break_long_words=False,
            )
