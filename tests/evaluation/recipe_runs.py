"""Small runs of recipes on the generated catalogue, without a prepared set."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.recipes import with_recipe
from mlim_ray.data.tokenizer import TextTokenizer
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.own_targets import OwnTargets, own_targets
from mlim_ray.evaluation.partner_probe import ProbeSet, make_probe_set
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.training.batch import Masking
from mlim_ray.training.build import run_masking
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config
from tests.evaluation.catalogue import catalogue_examples

NUM_CELLS = 16


@cache
def catalogue(num_records: int) -> tuple[Examples, Examples, TextTokenizer]:
    """Listings to train on and to test with."""
    return catalogue_examples(num_records)


def recipe_config(name: str, **train: Any) -> PretrainConfig:
    """A recipe for pictures of 16 pixels in cells of 4."""
    config = with_recipe(make_config(train={"learning_rate": 3e-3} | train), name)
    return with_knobs(config, {"recon.pixels": 4}) if config.recon.kind == "hog" else config


def recipe_model(config: PretrainConfig, tokenizer: TextTokenizer) -> MlimModel:
    """A model of two layers with the recipe's parts."""
    model = config.model
    parts: dict[str, Any] = {"num_joint_layers": model.num_joint_layers, "encoder_kind": model.encoder.kind}
    if model.encoder.kind == "mixture":
        parts |= {"num_mixture_layers": 2, "num_experts": 4, "num_experts_used": model.encoder.num_used}
    linear = model.embedder.kind == "linear_patches"
    torch.manual_seed(0)
    return MlimModel(
        MlimConfig(
            image_size=16,
            embedder_kind=model.embedder.kind,
            embedder_channels=(64,) if linear else (16, 64),
            decoder_channels=(32,),
            num_hidden_layers=2,
            vocab_size=tokenizer.vocab_size,
            mask_token_id=tokenizer.mask_id,
            pad_token_id=tokenizer.pad_id,
            max_tokens=24,
            **parts,
        )
    )


def run_recipe(config: PretrainConfig, num_records: int) -> tuple[Trainer, list[dict[str, Any]]]:
    """Train to the last step; gives the trainer and its lines."""
    train, _, tokenizer = catalogue(num_records)
    order = StreamOrder(len(train.records.key_hash_R), 64, config.train.batch_size, 6, 2, 0)
    trainer: Trainer = Trainer(recipe_model(config, tokenizer), config, order)
    lines: list[dict[str, Any]] = []
    num_steps = config.train.num_steps
    masking = run_masking(config, trainer.model.config)
    batches = resident_batches(train.records, order, masking, range(6), 0, num_steps)
    trainer.run(batches, num_steps, lines.append)
    return trainer, lines


def masking_of(config: PretrainConfig) -> Masking:
    """What the masks of pictures in full size depend on."""
    return Masking(config.masking, config.train.seed, NUM_CELLS)


def probe_of(num_records: int) -> ProbeSet:
    """The test listings, each with a wrong partner."""
    records = catalogue(num_records)[1].records
    return make_probe_set(records, num_cells=NUM_CELLS, seed=0, unigram_entropy=1.0, pixel_variance=1.0)


def own_targets_of(trainer: Trainer, num_records: int) -> dict[str, OwnTargets]:
    """By the name of the loss."""
    probe = probe_of(num_records)
    found = own_targets(trainer.losses, probe.records, probe.partner_B, masking_of(trainer.config))
    return {each.name: each for each in found}
