"""The contrastive loss against torch's own on what is left, and its masks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.evaluation.contrastive import EncoderTowers, LinearTowers, contrastive_loss, embed, train_towers
from tests.builders import make_model
from tests.evaluation.kinds import kinds_of, records_of

WIDTH = 16


def sides(num_records: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_records, WIDTH, generator=generator), torch.randn(num_records, WIDTH, generator=generator)


def others(num_records: int) -> torch.Tensor:
    return ~torch.eye(num_records, dtype=torch.bool)


def test_each_side_is_told_among_the_batch() -> None:
    image, text = sides(5)
    cosines = torch.stack([torch.stack([F.cosine_similarity(i, t, dim=0) for t in text]) for i in image]) / 0.1
    rows = [-torch.log(torch.exp(cosines[i, i]) / torch.exp(cosines[i]).sum()) for i in range(5)]
    columns = [-torch.log(torch.exp(cosines[i, i]) / torch.exp(cosines[:, i]).sum()) for i in range(5)]
    expected = (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2
    torch.testing.assert_close(contrastive_loss(image, text, others(5), 0.1), expected)


def test_a_pair_that_shares_a_title_is_no_wrong_pair() -> None:
    image, text = sides(3)
    masked = others(3)
    masked[0, 2] = masked[2, 0] = False
    changed = text.clone().requires_grad_()
    contrastive_loss(image[:1].repeat(3, 1), changed, torch.zeros(3, 3, dtype=torch.bool), 0.1).backward()
    assert torch.equal(changed.grad, torch.zeros(3, WIDTH)), "with nothing to be told from, nothing is learned"
    loss = contrastive_loss(image, text, masked, 0.1)
    assert loss < contrastive_loss(image, text, others(3), 0.1)


def test_training_brings_pictures_and_titles_together() -> None:
    kinds = kinds_of(120, 1)
    records = records_of(kinds, 1)
    config = FineTuneConfig(num_epochs=15.0, batch_size=40, learning_rate=5e-3)
    held_out = records_of(np.arange(8), 2)
    for towers in (EncoderTowers(make_model(), WIDTH, 0), LinearTowers(records, WIDTH, 0, torch.device("cpu"))):
        told: list[tuple[int, int]] = []
        train_towers(towers, records, config, 0.1, 0, lambda done, of, told=told: told.append((done, of)))
        similarity = embed(towers, held_out, "image") @ embed(towers, held_out, "text").T
        assert (similarity.argmax(1) == np.arange(8)).mean() >= 0.75, type(towers).__name__
        assert told[-1] == (45, 45)


def test_embeddings_have_length_one_and_the_models_stay_as_they_are() -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    towers = EncoderTowers(model, WIDTH, 0)
    records = records_of(kinds_of(20, 1), 1)
    train_towers(towers, records, FineTuneConfig(num_epochs=1.0, batch_size=10), 0.1, 0, lambda done, of: None)
    np.testing.assert_allclose(np.linalg.norm(embed(towers, records, "text"), axis=1), 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_title_for_all_teaches_nothing_and_breaks_nothing() -> None:
    records = records_of(np.zeros(20, int), 1)
    ids = records.token_ids_RT.copy()
    ids[:] = ids[0]
    towers = LinearTowers(records._replace(token_ids_RT=ids), WIDTH, 0, torch.device("cpu"))
    config = FineTuneConfig(num_epochs=1.0, batch_size=10, weight_decay=0.0)
    before = towers.projections["image"].weight.clone()
    train_towers(towers, records._replace(token_ids_RT=ids), config, 0.1, 0, lambda done, of: None)
    assert torch.equal(towers.projections["image"].weight, before)
