"""A mixture against a computation row by row, its routing by modality, and the balance of its experts."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mlim_ray.model import MlimModel, load_bert_weights
from mlim_ray.model.encoders import Mixture, balance_of
from tests.builders import NUM_CELLS, make_model
from tests.model.parts import MIXTURE, make_inputs, total_loss
from tests.model.test_bert import make_bert

INPUTS = make_inputs()
NUM_CELL_ROWS = INPUTS.cell_hidden_BN.numel()


def mixtures(model: MlimModel) -> list[Mixture]:
    return [module for module in model.encoder.modules() if isinstance(module, Mixture)]


def routing(mixture: Mixture, x_RD: Tensor) -> Tensor:
    """Probabilities of the experts for rows in the layout's order."""
    modality = torch.tensor([int(row >= NUM_CELL_ROWS) for row in range(len(x_RD))])
    return F.softmax(mixture.gate(x_RD + mixture.modalities.weight[modality]), dim=1)


@pytest.mark.parametrize("num_used", [1, 2, 4])
@torch.inference_mode()
def test_rows_are_what_their_experts_make_of_them(num_used: int) -> None:
    torch.manual_seed(0)
    mixture = Mixture(8, 4, num_used, 32)
    x_RD = torch.randn(len(INPUTS.layout.place_P), 8)
    found = mixture(x_RD, INPUTS.layout)
    for row, probability in enumerate(routing(mixture, x_RD)):
        chosen = sorted(range(4), key=lambda e: -float(probability[e]))[:num_used]
        total = sum(float(probability[e]) for e in chosen) if num_used > 1 else 1.0
        expected = sum(float(probability[e]) / total * mixture.experts[e](x_RD[row]) for e in chosen)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_balance_loss_is_that_of_each_record() -> None:
    torch.manual_seed(0)
    mixture, num_records = Mixture(8, 4, 2, 32), len(INPUTS.token_ids_BT)
    x_RD = torch.randn(len(INPUTS.layout.place_P), 8)
    mixture(x_RD, INPUTS.layout)
    probability_RE = routing(mixture, x_RD)
    num_tokens = INPUTS.token_ids_BT.shape[1]
    record_R = [row // NUM_CELLS for row in range(NUM_CELL_ROWS)] + (INPUTS.layout.token_U // num_tokens).tolist()
    for record in range(num_records):
        own = probability_RE[torch.tensor(record_R) == record]
        sent = torch.zeros(4)
        for row in own:
            for expert in row.topk(2).indices.tolist():
                sent[expert] += 0.5 / len(own)
        assert float(mixture.balance.sum_B[record]) == pytest.approx(4.0 * float(sent @ own.mean(0)), rel=1e-4)
    assert mixture.balance.count_B.tolist() == [1.0] * num_records


@torch.inference_mode()
def test_even_routing_costs_one_and_a_single_expert_as_much_as_there_are() -> None:
    mixture = Mixture(8, 4, 1, 32)
    for weight in (mixture.gate.weight, mixture.modalities.weight, mixture.gate.bias):
        weight.zero_()
    x_RD = torch.randn(len(INPUTS.layout.place_P), 8)
    mixture(x_RD, INPUTS.layout)
    torch.testing.assert_close(mixture.balance.sum_B, torch.ones(12))
    mixture.gate.bias[2] = 50.0
    mixture(x_RD, INPUTS.layout)
    torch.testing.assert_close(mixture.balance.sum_B, torch.full((12,), 4.0))


@torch.inference_mode()
def test_the_gate_knows_the_modality() -> None:
    mixture = Mixture(8, 2, 1, 32)
    mixture.modalities.weight.copy_(torch.stack([torch.ones(8), -torch.ones(8)]))
    mixture.gate.weight.copy_(torch.stack([torch.full((8,), 9.0), torch.full((8,), -9.0)]))
    sent = []
    for expert in mixture.experts:
        expert.register_forward_pre_hook(lambda module, given: sent.append(len(given[0])))
    mixture(torch.zeros(len(INPUTS.layout.place_P), 8), INPUTS.layout)
    assert sent == [NUM_CELL_ROWS, len(INPUTS.layout.token_U)]


def used_by(mixture: Mixture, model: MlimModel) -> Tensor:
    """Share of the rows that each expert gets."""
    counts: list[int] = []
    handles = [
        expert.register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
        for expert in mixture.experts
    ]
    with torch.inference_mode():
        model(*INPUTS[:6])
    for handle in handles:
        handle.remove()
    return torch.tensor(counts) / sum(counts)


def test_the_balance_loss_mends_a_routing_that_has_fallen_in() -> None:
    shares = {}
    for weight in (0.0, 0.3):
        model = make_model(**MIXTURE | {"num_experts": 4, "num_experts_used": 1})
        (mixture,) = mixtures(model)
        with torch.no_grad():
            mixture.gate.bias[0] = 1.0
        assert used_by(mixture, model).tolist() == [1.0, 0.0, 0.0, 0.0]
        optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(60):
            optimiser.zero_grad()
            loss = total_loss(model, INPUTS)
            balance = balance_of(model.encoder)
            (loss + weight * balance.sum_B.sum() / balance.count_B.sum()).backward()
            optimiser.step()
        shares[weight] = used_by(mixture, model)
    assert shares[0.0].max() > 0.8
    assert shares[0.3].max() < 0.5 and shares[0.3].min() > 0.1


def test_sums_over_parts_of_a_batch_are_those_of_the_whole() -> None:
    model = make_model(**MIXTURE | {"num_mixture_layers": 2})
    model(*INPUTS[:5])
    whole = balance_of(model.encoder)
    assert whole.count_B.tolist() == [2.0] * 12
    parts = []
    for part in (slice(0, 5), slice(5, 12)):
        model(*(each[part] for each in INPUTS[:5]))
        parts.append(balance_of(model.encoder).sum_B)
    torch.testing.assert_close(torch.cat(parts), whole.sum_B, rtol=1e-4, atol=1e-5)


def test_a_model_that_has_made_a_pass_can_be_copied_and_sent() -> None:
    model = make_model(**MIXTURE)
    total_loss(model, INPUTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert mixtures(other)[0].balance is None
        assert other.state_dict().keys() == model.state_dict().keys()
    assert balance_of(model.encoder).sum_B.requires_grad


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_model(**MIXTURE)
        model.encoder.activation_checkpointing = checkpointing
        (total_loss(model, INPUTS) + balance_of(model.encoder).sum_B.sum()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_asking_for_a_balance_that_there_is_not_is_refused() -> None:
    for model in (make_model(), make_model(**MIXTURE)):
        with pytest.raises(ValueError, match="--model.encoder.kind mixture"):
            balance_of(model.encoder)


def test_every_expert_starts_from_berts_layer(tmp_path: Path) -> None:
    bert = make_bert()
    bert.save_pretrained(tmp_path)
    model = make_model(**MIXTURE, embedder_channels=(8, 64), num_attention_heads=4, vocab_size=50, pre_norm=False)
    load_bert_weights(model, str(tmp_path))
    (mixture,) = mixtures(model)
    theirs = bert.bert.encoder.layer[1]
    for expert in mixture.experts:
        assert torch.equal(expert[0].weight, theirs.intermediate.dense.weight)
        assert torch.equal(expert[2].bias, theirs.output.dense.bias)
    assert torch.equal(
        model.encoder.layers[0].feed_forward[0].weight, bert.bert.encoder.layer[0].intermediate.dense.weight
    )
    with torch.inference_mode():
        x_RD = torch.randn(len(INPUTS.layout.place_P), 64)
        expected = theirs.output.dense(theirs.intermediate(x_RD))
        torch.testing.assert_close(mixture(x_RD, INPUTS.layout), expected, rtol=1e-4, atol=1e-5)
