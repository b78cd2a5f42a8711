"""ITC by hand: the own one among all of the other side, and no trace of a text that is not shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.config import ItcConfig
from mlim_ray.data.records import Records
from mlim_ray.objectives import LossTerms, Pass
from mlim_ray.objectives.itc import Itc
from mlim_ray.training.batch import make_batch
from mlim_ray.training.peers import meet
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_model, make_records

CPU = torch.device("cpu")


def terms_of(records: Records, objective: Itc, temperature: float = 0.1) -> LossTerms:
    model = make_model().eval()
    batch = make_batch(records, 0, make_masking(make_config()))
    inputs = to_tensors(batch, CPU)
    peers = meet(batch, 0, CPU, in_parts=False).peers(0, len(batch.key_hash_B))
    terms: LossTerms = objective(Pass(model, inputs, model.target_states(*inputs[:6]), peers))
    return terms


def make_objective(temperature: float = 0.1) -> Itc:
    torch.manual_seed(3)
    return Itc(ItcConfig(weight=1.0, temperature=temperature, width=6), make_model().config)


def test_the_loss_is_info_nce_both_ways() -> None:
    records, model, objective = make_records(9), make_model().eval(), make_objective()
    inputs = to_tensors(make_batch(records, 0, make_masking(make_config())), CPU)
    image, text = (objective.embed(model, inputs, side).detach().double().numpy() for side in ("image", "text"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1.0, rtol=1e-5)
    titles = [row.tobytes() for row in records.token_ids_RT]
    expected = []
    for record in range(9):
        others = [other for other in range(9) if other == record or titles[other] != titles[record]]
        to_texts = np.exp([image[record] @ text[other] / 0.1 for other in others])
        to_images = np.exp([text[record] @ image[other] / 0.1 for other in others])
        own = others.index(record)
        expected.append(-np.log(to_texts[own] / to_texts.sum()) / 2 - np.log(to_images[own] / to_images.sum()) / 2)
    terms = terms_of(records, objective)
    assert terms.sum_B.tolist() == pytest.approx(expected, rel=1e-4)
    assert terms.count_B.tolist() == [1.0] * 9


def test_records_of_one_title_are_no_wrong_pairs() -> None:
    records = make_records(4)
    ids, num_tokens = records.token_ids_RT.repeat(1, 0), records.num_tokens_R.copy()
    ids[:], num_tokens[:] = ids[0], num_tokens[0]
    terms = terms_of(records._replace(token_ids_RT=ids, num_tokens_R=num_tokens), make_objective())
    assert terms.sum_B.tolist() == [0.0] * 4


def test_a_picture_alone_tells_nothing_of_its_text() -> None:
    objective, model, records = make_objective(), make_model().eval(), make_records(6)
    other = make_records(6, seed=9)
    swapped = records._replace(
        token_ids_RT=other.token_ids_RT, num_tokens_R=other.num_tokens_R, word_of_token_RT=other.word_of_token_RT
    )
    masking = make_masking(make_config())
    embedded = [
        objective.embed(model, to_tensors(make_batch(each, 0, masking), CPU), "image") for each in (records, swapped)
    ]
    torch.testing.assert_close(*embedded, rtol=1e-5, atol=1e-6)
