"""Starting from a BERT checkpoint gives BERT's own states; a checkpoint that does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from mlim_ray.model import MlimModel, load_bert_weights
from mlim_ray.model.layout import Layout
from mlim_ray.model.pretrained import MlimPreTrainedModel
from tests.builders import make_model

WIDTH, VOCAB_SIZE = 64, 50


def make_bert(**shape: Any) -> BertForMaskedLM:
    torch.manual_seed(3)
    default = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": 20,
        "initializer_range": 0.2,
    }
    bert = BertForMaskedLM(BertConfig(**(default | shape))).eval()
    with torch.no_grad():
        # Fresh biases and norms are zeros and ones, which would hide a mix-up.
        for parameter in bert.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return bert


def make_target(**shape: Any) -> MlimModel:
    default = {
        "embedder_channels": (8, WIDTH),
        "num_attention_heads": 4,
        "vocab_size": VOCAB_SIZE,
        "pre_norm": False,
    }
    return make_model(**(default | shape)).eval()


@torch.inference_mode()
def test_text_alone_gives_berts_own_states_and_logits(tmp_path: Path) -> None:
    bert, model = make_bert(), make_target()
    bert.save_pretrained(tmp_path)
    load_bert_weights(model, str(tmp_path))
    ids = torch.randint(VOCAB_SIZE, (3, 10))
    present = torch.arange(10)[None] < torch.tensor([10, 6, 3])[:, None]
    theirs = bert(ids, attention_mask=present.long(), output_hidden_states=True)

    x_BSD = model.embedding_norm(model.word_embeddings(ids) + model.token_positions)
    torch.testing.assert_close(x_BSD, theirs.hidden_states[0], rtol=1e-5, atol=1e-5)
    layout = Layout.of(present, torch.zeros(3, 0, dtype=torch.bool), torch.zeros_like(present))
    x_PD = layout.pack(x_BSD, 19)
    for layer, expected in zip(model.encoder.layers, theirs.hidden_states[1:], strict=True):
        x_PD = layer(x_PD, layout, 19)
        torch.testing.assert_close(x_PD, expected[present], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.mlm_logits(x_PD), theirs.logits[present], rtol=1e-4, atol=1e-4)


def test_what_bert_does_not_know_keeps_its_initial_values(tmp_path: Path) -> None:
    make_bert().save_pretrained(tmp_path)
    model, fresh = make_target(), make_target()
    load_bert_weights(model, str(tmp_path))
    new = {name for name, value in model.state_dict().items() if not torch.equal(value, fresh.state_dict()[name])}
    kept = set(fresh.state_dict()) - new
    assert kept == {n for n in kept if n.startswith(("image_embedder.", "image_decoder.", "cell_positions"))}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_checkpoint_without_head_or_in_torchs_own_format_works(tmp_path: Path) -> None:
    bert = make_bert()
    torch.save(bert.bert.state_dict(), tmp_path / "pytorch_model.bin")
    model, fresh = make_target(), make_target()
    load_bert_weights(model, str(tmp_path))
    assert torch.equal(model.word_embeddings.weight, bert.bert.embeddings.word_embeddings.weight)
    assert torch.equal(model.mlm_head.dense.weight, fresh.mlm_head.dense.weight)


@pytest.mark.parametrize(
    ("checkpoint", "target", "message"),
    [
        (
            {"vocab_size": 51},
            {},
            r"word_embeddings.weight has shape \(51, 64\), the model expects \(50, 64\)",
        ),
        ({"hidden_size": 32, "intermediate_size": 128}, {}, "has shape"),
        ({"intermediate_size": 128}, {}, "feed_forward"),
        ({"max_position_embeddings": 8}, {}, "token_positions"),
        ({"num_hidden_layers": 1}, {}, "not a BERT checkpoint of 2 layers"),
        ({"num_hidden_layers": 3}, {}, "more than the model's 2 layers"),
        ({}, {"pre_norm": True}, "--model.size base or large"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_whole(
    tmp_path: Path, checkpoint: dict[str, int], target: dict[str, Any], message: str
) -> None:
    make_bert(**checkpoint).save_pretrained(tmp_path)
    model = make_target(**target)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as refusal:
        load_bert_weights(model, str(tmp_path))
    assert str(tmp_path) in str(refusal.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_folder_without_weights_or_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected model.safetensors or pytorch_model.bin.*found neither"):
        load_bert_weights(make_target(), str(tmp_path))
    MlimPreTrainedModel.of(make_target()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a BERT checkpoint"):
        load_bert_weights(make_target(), str(tmp_path))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(tmp_path / "created"), "w")

    torch.save({"embeddings": Hostile()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_bert_weights(make_target(), str(tmp_path))
    assert not (tmp_path / "created").exists()
