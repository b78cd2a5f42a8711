"""What a search varies, the references it starts with, and how a trial's parameters become a config."""

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from mlim_ray.config import AlternatingConfig, IndependentConfig, MamConfig, SearchRunConfig
from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.space import DEFAULT_SPACE, Choice, Dimension, Value, is_knob
from mlim_ray.reporting.search_figures import Role

if TYPE_CHECKING:
    import optuna

Parameters = dict[str, Value]
"""Of a trial, by the names of the space: its policy, that policy's own, and the knobs that are varied."""

REFERENCES: tuple[Role, ...] = ("paper", "light_only", "both_heavy", "alternating")
"""Roles of the first trials, in order; never stopped early (contract C5)."""
_HEAVY_RATIO = 0.8
_PAPER = MamConfig()


def suggest(trial: "optuna.Trial", space: Mapping[str, Dimension]) -> Parameters:
    """A trial's parameters, drawn by the study's sampler: the policy first, then only what that policy has."""
    policy = _suggest(trial, "policy", space["policy"])
    parameters: Parameters = {"policy": policy}
    for name, dimension in space.items():
        if name.partition(".")[0] == policy or is_knob(name):
            parameters[name] = _suggest(trial, name, dimension)
    return parameters


def reference_parameters(role: Role, base: SearchRunConfig, space: Mapping[str, Dimension]) -> Parameters:
    """The parameters of a reference trial.

    `paper` is the paper's setting, `light_only` its usual alternative, `both_heavy` hides 80 % of both sides in every
    record, `alternating` 80 % of one side or the other. Everything else is as the search's base has it, or as the
    space fixes it.
    """
    parameters: Parameters
    match role:
        case "both_heavy":
            both = IndependentConfig(image_ratio=_HEAVY_RATIO, text_ratio=_HEAVY_RATIO)
            parameters = {"policy": "independent", **_own(both, base)}
        case "alternating":
            parameters = {"policy": "alternating", **_own(AlternatingConfig(), base)}
        case _:
            light_probability = 1.0 if role == "light_only" else 1.0 / 3.0
            parameters = {"policy": "mam", "mam.light_probability": light_probability, "mam.image_heavy_share": 0.5}
            parameters |= _own(_PAPER, base)
    for name, dimension in space.items():
        if is_knob(name):
            is_fixed = isinstance(dimension, Choice) and len(dimension.values) == 1
            parameters[name] = dimension.values[0] if is_fixed else _held(base, name)  # type: ignore[union-attr]
    return parameters


def lies_in(space: Mapping[str, Dimension], parameters: Parameters) -> bool:
    """Whether every parameter is one that the sampler could have drawn."""
    return all(name in space and space[name].holds(value) for name, value in parameters.items())


def trial_config(base: SearchRunConfig, parameters: Mapping[str, Value], seed: int | None = None) -> SearchRunConfig:
    """The resolved config of a trial.

    Args:
        base: what all trials of the search start from.
        parameters: of the trial.
        seed: None: the base's own.
    """
    # What else the space holds need not go with this trial's values.
    base = base.model_copy(update={"search": base.search.model_copy(update={"space": ()})})
    knobs: dict[str, Value] = {name: value for name, value in parameters.items() if is_knob(name)}
    policy = str(parameters["policy"])
    own = {
        name.removeprefix(f"{policy}."): value for name, value in parameters.items() if name.startswith(f"{policy}.")
    }
    if policy == "mam":
        heavy = 1.0 - float(own.pop("light_probability"))
        image_heavy = heavy * float(own.pop("image_heavy_share"))
        own |= {"image_heavy_probability": image_heavy, "text_heavy_probability": heavy - image_heavy}
    knobs |= {"masking.kind": policy, **{f"masking.{name}": value for name, value in own.items()}}
    if seed is not None:
        knobs["train.seed"] = seed
    return with_knobs(base, knobs)


def _own(masking: MamConfig | IndependentConfig | AlternatingConfig, base: SearchRunConfig) -> Parameters:
    """What the reference's policy has, and what the base would set otherwise."""
    policy, known = masking.kind, type(masking)()
    values = masking.model_dump(exclude={"kind", "image_heavy_probability", "text_heavy_probability"})
    if policy == "alternating":
        values["image_heavy_probability"] = masking.image_heavy_probability  # type: ignore[union-attr]
    held = base.masking if base.masking.kind == policy else known
    searched = {name.removeprefix(f"{policy}.") for name in DEFAULT_SPACE}
    return {
        f"{policy}.{name}": value for name, value in values.items() if name in searched or getattr(held, name) != value
    }


def _suggest(trial: "optuna.Trial", name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Choice):
        if len(dimension.values) == 1:
            return dimension.values[0]
        chosen: Value = trial.suggest_categorical(name, list(dimension.values))
        return chosen
    if dimension.is_integer:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def _held(base: SearchRunConfig, name: str) -> Any:
    return reduce(getattr, name.split("."), base)
