"""Start the encoder from a BERT checkpoint folder (the paper builds on BERT-large-uncased)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mlim_ray.model.mlim import MlimModel


def load_bert_weights(model: MlimModel, folder: str) -> None:
    """Copy a BERT checkpoint's encoder, embeddings and, where it has one, MLM head into the model, in place.

    BERT's first token-type embedding is added to the text positions, so that text alone gives BERT's own states.
    Image embedder, cell positions and decoder keep their initial values. Every expert of a mixture starts from its
    layer's feed-forward part, and its gate from its initial values.

    Raises:
        ValueError: the folder holds no weights, or the shapes do not fit the model.
    """
    source = {name.removeprefix("bert."): tensor for name, tensor in _read_weights(Path(folder)).items()}
    if model.config.pre_norm:
        raise ValueError(
            f"{folder}: BERT normalises after each sub-layer and this size before it; use --model.size base or large"
        )
    target = dict(model.named_parameters())
    weights = _renamed(source, model.config.num_hidden_layers, folder)
    weights = _for_every_expert(weights, target)
    weights["token_positions"] = weights["token_positions"][: model.config.max_tokens]
    for name, tensor in weights.items():
        if tensor.shape != target[name].shape:
            raise ValueError(
                f"{folder}: {name} has shape {tuple(tensor.shape)}, the model expects {tuple(target[name].shape)}; "
                "use the size that matches the checkpoint and its own tokenizer (--prepare.tokenizer FOLDER)"
            )
    with torch.no_grad():
        for name, tensor in weights.items():
            target[name].copy_(tensor)


def _for_every_expert(weights: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with those of a layer that the model has several experts for given to each of them."""
    out = dict(weights)
    for name in target:
        layer, is_expert, rest = name.partition(".experts.")
        if is_expert:
            shared = f"{layer}.{rest.partition('.')[2]}"
            out[name] = weights[shared]
            out.pop(shared, None)
    return out


def weights_file(folder: Path) -> Path:
    """The file with a checkpoint folder's weights. Raises ValueError where there is none."""
    for path in (folder / "model.safetensors", folder / "pytorch_model.bin"):
        if path.is_file():
            return path
    raise ValueError(f"{folder}: expected model.safetensors or pytorch_model.bin of a BERT checkpoint, found neither")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = weights_file(folder)
    if path.suffix == ".safetensors":
        return load_file(path)
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _renamed(bert: dict[str, Tensor], num_layers: int, folder: str) -> dict[str, Tensor]:
    """BERT's tensors under our names, queries, keys and values joined."""
    try:
        out = {
            "word_embeddings.weight": bert["embeddings.word_embeddings.weight"],
            "token_positions": bert["embeddings.position_embeddings.weight"]
            + bert["embeddings.token_type_embeddings.weight"][0],
            "embedding_norm.weight": bert["embeddings.LayerNorm.weight"],
            "embedding_norm.bias": bert["embeddings.LayerNorm.bias"],
        }
        for i in range(num_layers):
            theirs, ours = f"encoder.layer.{i}", f"encoder.layers.{i}"
            for kind in ("weight", "bias"):
                parts = [bert[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                out[f"{ours}.attention.query_key_value.{kind}"] = torch.cat(parts)
                out[f"{ours}.attention.output.{kind}"] = bert[f"{theirs}.attention.output.dense.{kind}"]
                out[f"{ours}.attention_norm.{kind}"] = bert[f"{theirs}.attention.output.LayerNorm.{kind}"]
                out[f"{ours}.feed_forward.0.{kind}"] = bert[f"{theirs}.intermediate.dense.{kind}"]
                out[f"{ours}.feed_forward.2.{kind}"] = bert[f"{theirs}.output.dense.{kind}"]
                out[f"{ours}.feed_forward_norm.{kind}"] = bert[f"{theirs}.output.LayerNorm.{kind}"]
    except KeyError as error:
        raise ValueError(f"{folder}: not a BERT checkpoint of {num_layers} layers, {error} is missing") from error
    if f"encoder.layer.{num_layers}.output.dense.weight" in bert:
        raise ValueError(f"{folder}: the checkpoint has more than the model's {num_layers} layers; use a larger size")
    head = {
        "mlm_head.dense.weight": "cls.predictions.transform.dense.weight",
        "mlm_head.dense.bias": "cls.predictions.transform.dense.bias",
        "mlm_head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "mlm_head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
        "mlm_head.bias": "cls.predictions.bias",
    }
    return out | {ours: bert[theirs] for ours, theirs in head.items() if theirs in bert}
