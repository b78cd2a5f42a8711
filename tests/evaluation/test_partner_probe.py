"""The partner probe: fixed masks, wrong partners that are wrong, unweighted losses (contract C5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.data.records import Records
from mlim_ray.evaluation.partner_probe import HIDDEN_RATIOS, ProbeSet, make_probe_set, partner_measures, probe_partners
from mlim_ray.model import MlimModel
from mlim_ray.objectives import pixels_of_cells
from mlim_ray.training.batch import masked
from mlim_ray.training.tensors import to_tensors
from tests.builders import FIRST_PIECE, MAX_TOKENS, NUM_CELLS, VOCAB_SIZE, make_model, make_records


def make_probe(records: Records, seed: int = 0) -> ProbeSet:
    return make_probe_set(records, num_cells=NUM_CELLS, seed=seed, unigram_entropy=2.0, pixel_variance=0.5)


def pieces_of(records: Records) -> np.ndarray:
    return records.token_ids_RT[records.word_of_token_RT >= 0]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.integers(0, 2**63 - 1))
def test_a_partner_always_has_another_title(titles: list[int], seed: int) -> None:
    records = make_records(len(titles))
    different = make_records(3, seed=3)
    records = records._replace(token_ids_RT=different.token_ids_RT[titles])
    if len(set(titles)) == 1:
        with pytest.raises(ValueError, match="the same title.*--prepare.text-column"):
            make_probe(records, seed)
        return
    probe = make_probe(records, seed)
    assert all(titles[partner] != title for partner, title in zip(probe.partner_B, titles, strict=True))


def test_partners_are_spread_and_fixed_by_the_seed() -> None:
    records = make_records(100)
    partners = make_probe(records).partner_B
    np.testing.assert_array_equal(partners, make_probe(records).partner_B)
    assert np.mean(partners == make_probe(records, seed=1).partner_B) < 0.1
    assert len(set(partners.tolist())) > 90


def test_masks_are_the_same_in_every_call_and_set() -> None:
    records = make_records(60)
    for cell_ratio, word_ratio in ((0.5, 0.0), (0.0, 0.8), (1.0, 1.0)):
        masks = make_probe(records).masks(cell_ratio, word_ratio)
        some = np.arange(0, 60, 7)
        for other, expected in (
            (make_probe(records).masks(cell_ratio, word_ratio), slice(None)),
            (make_probe(records.take(some)).masks(cell_ratio, word_ratio), some),
        ):
            np.testing.assert_array_equal(other.cell_hidden_BN, masks.cell_hidden_BN[expected])
            np.testing.assert_array_equal(other.token_hidden_BT, masks.token_hidden_BT[expected])
        assert masks.cell_hidden_BN.mean() == pytest.approx(cell_ratio, abs=1e-9)
        hidden_words = masks.token_hidden_BT.sum() / (records.word_of_token_RT >= 0).sum()
        assert hidden_words == pytest.approx(word_ratio, abs=0.1 if 0 < word_ratio < 1 else 0)
    assert (make_probe(records, seed=1).masks(0.5, 0.0).cell_hidden_BN != masks.cell_hidden_BN).any()


def test_hidden_sets_grow_with_the_ratio() -> None:
    probe = make_probe(make_records(40))
    for less, more in ((0.2, 0.5), (0.5, 0.8)):
        assert (probe.masks(less, 0.0).cell_hidden_BN <= probe.masks(more, 0.0).cell_hidden_BN).all()


@torch.inference_mode()
def test_the_losses_are_those_of_a_direct_computation() -> None:
    # More records than an evaluation batch holds, so that means of means would show.
    records, model = make_records(300), make_model()
    # Weights large enough that a wrong partner or mask shows in every figure.
    for parameter in model.parameters():
        parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    probe = make_probe(records)
    ratio = 0.5
    at = probe_partners(model, probe, wrong_partners=True)[HIDDEN_RATIOS.index(ratio)]

    everything = torch.ones(300, NUM_CELLS, dtype=torch.bool)
    all_words = torch.from_numpy(records.word_of_token_RT >= 0)
    words = torch.from_numpy(probe.masks(0.0, ratio).token_hidden_BT)
    cells = torch.from_numpy(probe.masks(ratio, 0.0).cell_hidden_BN)
    pixels = torch.from_numpy(records.pixels_RHW3 / 255.0).float().permute(0, 3, 1, 2)
    ids = torch.from_numpy(records.token_ids_RT).long()
    present = torch.arange(MAX_TOKENS)[None] < torch.from_numpy(records.num_tokens_R.astype(int))[:, None]
    partner = torch.from_numpy(probe.partner_B)

    def mlm(pixels: torch.Tensor, cell_hidden: torch.Tensor) -> float:
        logits, _ = model(pixels, ids, present, cell_hidden, words)
        return -logits.log_softmax(1)[torch.arange(len(logits)), ids[words]].mean().item()

    def recon(ids: torch.Tensor, present: torch.Tensor, token_hidden: torch.Tensor) -> float:
        _, painted = model(pixels, ids, present, cells, token_hidden)
        return (painted - pixels).square().sum(1).mean().item()

    expected = {
        "mlm_paired": mlm(pixels, ~everything),
        "mlm_shuffled": mlm(pixels[partner], ~everything),
        "mlm_blank": mlm(pixels, everything),
        "recon_paired": recon(ids, present, ~all_words & all_words),
        "recon_shuffled": recon(ids[partner], present[partner], ~all_words & all_words),
        "recon_blank": recon(ids, present, all_words),
    }
    assert {name: getattr(at, name) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert len({round(value, 4) for value in expected.values()}) == 6


def test_true_partners_alone_give_the_same_figures() -> None:
    probe, model = make_probe(make_records(20)), make_model()
    both = probe_partners(model, probe, wrong_partners=True)
    paired = probe_partners(model, probe, wrong_partners=False)
    assert [at.hidden_ratio for at in paired] == list(HIDDEN_RATIOS) == [0.2, 0.5, 0.8, 1.0]
    assert [(at.mlm_paired, at.recon_paired) for at in paired] == [(at.mlm_paired, at.recon_paired) for at in both]
    assert all(at.mlm_shuffled is at.mlm_blank is at.recon_shuffled is at.recon_blank is None for at in paired)


def test_probing_leaves_a_model_under_training_as_it_was() -> None:
    probe, model = make_probe(make_records(20)), make_model(dropout_ratio=0.5).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert probe_partners(model, probe, wrong_partners=True) == probe_partners(model, probe, wrong_partners=True)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def frequency_model(records: Records) -> MlimModel:
    """A model whose words come from its last bias alone and whose picture is one colour."""
    model = make_model()
    counts = np.bincount(pieces_of(records), minlength=VOCAB_SIZE)
    colour = torch.from_numpy(records.pixels_RHW3.reshape(-1, 3).mean(0) / 255.0)
    with torch.no_grad():
        model.mlm_head.norm.weight.zero_()
        model.mlm_head.bias.copy_(torch.from_numpy(counts / counts.sum()).clamp(min=1e-9).log())
        model.image_decoder.layers[-2].weight.zero_()
        model.image_decoder.layers[-2].bias.copy_(colour.logit())
    return model


def test_knowing_frequencies_and_the_mean_pixel_scores_one() -> None:
    records = make_records(600)
    rng = np.random.default_rng(0)
    skewed = (FIRST_PIECE + rng.geometric(0.2, records.token_ids_RT.shape) % (VOCAB_SIZE - FIRST_PIECE)).astype(
        np.int32
    )
    records = records._replace(token_ids_RT=np.where(records.word_of_token_RT >= 0, skewed, records.token_ids_RT))
    frequencies = np.bincount(pieces_of(records)) / len(pieces_of(records))
    frequencies = frequencies[frequencies > 0]
    probe = make_probe_set(
        records,
        num_cells=NUM_CELLS,
        seed=0,
        unigram_entropy=-(frequencies * np.log(frequencies)).sum(),
        pixel_variance=(records.pixels_RHW3.reshape(-1, 3) / 255.0).var(0).sum(),
    )
    losses = probe_partners(frequency_model(records), probe, wrong_partners=False)
    measures = partner_measures(losses, probe)
    assert measures == pytest.approx({"probe": 1.0, "mlm": 1.0, "recon": 1.0}, abs=0.02)
    assert losses[-1].mlm_paired == pytest.approx(probe.unigram_entropy, rel=1e-4)
    assert [at.recon_paired for at in losses] == pytest.approx([probe.pixel_variance] * 4, rel=1e-4)
    # Both sides count alike, each in its own unit.
    other = [replace(at, mlm_paired=2 * at.mlm_paired, recon_of_hidden=at.recon_of_hidden / 2) for at in losses]
    assert partner_measures(other, probe) == pytest.approx({"probe": 1.25, "mlm": 2.0, "recon": 0.5}, abs=0.03)


def test_recon_of_hidden_cells_does_not_see_the_others() -> None:
    records = make_records(40)
    probe = make_probe_set(records, num_cells=NUM_CELLS, seed=0, unigram_entropy=1.0, pixel_variance=1.0)
    model = make_model().eval()
    losses = probe_partners(model, probe, wrong_partners=False)
    for at in losses:
        batch = masked(records, probe.masks(at.hidden_ratio, 0.0))
        inputs = to_tensors(batch, torch.device("cpu"))
        with torch.inference_mode():
            error_BHW = (model(*inputs[:5])[1] - inputs.pixels_B3HW).square().sum(1)
        hidden_BHW = pixels_of_cells(inputs.cell_hidden_BN, error_BHW.shape[-1])
        assert at.recon_of_hidden == pytest.approx(error_BHW[hidden_BHW].mean().item(), rel=1e-4)
        assert at.recon_paired == pytest.approx(error_BHW.mean().item(), rel=1e-4)
    assert losses[-1].recon_of_hidden == pytest.approx(losses[-1].recon_paired, rel=1e-5)
