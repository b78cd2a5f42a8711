"""What a search varies, the references it starts with, and how a trial's parameters become a config."""

from typing import Literal

import optuna

from mlim_ray.config import MamConfig, SearchConfig, SearchRunConfig

Parameters = dict[str, float]
Role = Literal["paper", "light_only", "searched"]

REFERENCES: tuple[Role, ...] = ("paper", "light_only")
"""Roles of the first trials, in order; never stopped early (contract C5)."""


def suggest(trial: optuna.Trial, search: SearchConfig, base_learning_rate: float) -> Parameters:
    """A trial's parameters, drawn by the study's sampler.

    The mode probabilities are drawn as the light mode's and the share of the rest that hides the picture: two
    independent numbers that cover the simplex without a corner that the sampler cannot see.
    """
    heavy = (search.min_heavy_ratio, search.max_heavy_ratio)
    light = (search.min_light_ratio, search.max_light_ratio)
    factor = search.learning_rate_factor
    return {
        "light_probability": trial.suggest_float("light_probability", 0.0, 1.0),
        "image_heavy_share": trial.suggest_float("image_heavy_share", 0.0, 1.0),
        "image_heavy_ratio": trial.suggest_float("image_heavy_ratio", *heavy),
        "text_heavy_ratio": trial.suggest_float("text_heavy_ratio", *heavy),
        "image_light_ratio": trial.suggest_float("image_light_ratio", *light),
        "text_light_ratio": trial.suggest_float("text_light_ratio", *light),
        "recon_weight": trial.suggest_float("recon_weight", search.min_recon_weight, search.max_recon_weight, log=True),
        "learning_rate": trial.suggest_float(
            "learning_rate", base_learning_rate / factor, base_learning_rate * factor, log=True
        ),
    }


def reference_parameters(role: Role, recon_weight: float, learning_rate: float) -> Parameters:
    """The parameters of a reference trial: the paper's setting, or light masking alone (its usual alternative)."""
    paper = MamConfig()
    return {
        "light_probability": 1.0 if role == "light_only" else 1.0 / 3.0,
        "image_heavy_share": 0.5,
        "image_heavy_ratio": paper.image_heavy_ratio,
        "text_heavy_ratio": paper.text_heavy_ratio,
        "image_light_ratio": paper.image_light_ratio,
        "text_light_ratio": paper.text_light_ratio,
        "recon_weight": recon_weight,
        "learning_rate": learning_rate,
    }


def trial_config(base: SearchRunConfig, parameters: Parameters) -> SearchRunConfig:
    """The resolved config of a trial."""
    heavy_probability = 1.0 - parameters["light_probability"]
    image_heavy_probability = heavy_probability * parameters["image_heavy_share"]
    masking = MamConfig(
        image_heavy_probability=image_heavy_probability,
        text_heavy_probability=heavy_probability - image_heavy_probability,
        image_heavy_ratio=parameters["image_heavy_ratio"],
        text_heavy_ratio=parameters["text_heavy_ratio"],
        image_light_ratio=parameters["image_light_ratio"],
        text_light_ratio=parameters["text_light_ratio"],
    )
    return base.model_copy(
        update={
            "masking": masking,
            "recon": base.recon.model_copy(update={"weight": parameters["recon_weight"]}),
            "train": base.train.model_copy(update={"learning_rate": parameters["learning_rate"]}),
        }
    )
