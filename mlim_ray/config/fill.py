"""How an attribute that records lack is told from what they have."""

from pydantic import Field

from mlim_ray.config.base import Section


class FillConfig(Section):
    """The evaluation: each attribute's words are hidden in the text, and its value is told from the rest."""

    attributes: tuple[str, ...] = ()
    """attributes to fill; all that the set was prepared with when none are named"""
    num_train: int = Field(20_000, ge=2)
    """training records that classifiers learn from (fewer when the split has fewer)"""
    num_held_out: int = Field(5_000, ge=2)
    """val records that choices are made by, and test records that figures are of"""
    most_values: int = Field(200, ge=2)
    """an attribute with more different values in training is passed over, and said so: it is no category"""


class FillingConfig(Section):
    """The command: what is written, and the classifier that is fitted on the records which have the attribute."""

    all_records: bool = False
    """whether records that have the attribute are filled too, to see where the catalogue may be wrong"""
    hides_words: bool = True
    """whether the words of all values are hidden in the texts, as in the evaluation; false where the texts of records
    that lack the attribute name it"""
    num_train: int = Field(20_000, ge=16)
    """records with the attribute that the classifier is fitted on; an eighth of that to choose by, and as many to
    measure"""
    most_values: int = Field(1_000, ge=2)
    """different values that the attribute may have; with more it is no category"""
    batch_size: int = Field(256, ge=1)
    """records of a forward pass"""
