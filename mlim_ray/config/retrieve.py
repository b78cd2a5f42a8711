"""How well a text finds its picture and a picture its text."""

from pydantic import Field

from mlim_ray.config.base import Section
from mlim_ray.config.fine_tune import FineTuneConfig


class RetrieveConfig(Section):
    """Frozen embeddings, a light contrastive fine-tune, and pairwise scoring of its best candidates."""

    num_records: int = Field(1_000, ge=2)
    """test records whose titles and pictures are the pool (fewer when the split has fewer)"""
    num_train: int = Field(4_000, ge=2)
    """training records of the contrastive fine-tune, and of the means that frozen embeddings are centred by"""
    contrastive: FineTuneConfig = Field(default_factory=lambda: FineTuneConfig(num_epochs=5.0, batch_size=128))
    """how the copy is trained to bring a picture and its title together"""
    projection_width: int = Field(128, ge=1)
    """values of an embedding after the contrastive fine-tune"""
    temperature: float = Field(0.07, gt=0.0)
    """similarities are divided by it in the contrastive loss"""
    num_reranked: int = Field(10, ge=2)
    """best candidates of each query that are scored pairwise"""
    num_masks: int = Field(2, ge=1)
    """seeded masks over which a pair's likelihood is summed"""
    hidden_ratio: float = Field(0.8, gt=0.0, le=1.0)
    """share of the title's words that each of these masks hides"""
