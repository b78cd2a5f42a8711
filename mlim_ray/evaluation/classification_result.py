"""What classification found, as figures, tables and sentences."""

from dataclasses import dataclass

from mlim_ray.evaluation.difference import Difference
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.result import ResultTable
from mlim_ray.evaluation.showing import Shown

MAJORITY = "majority"
PIXELS = "raw pixels (32x32)"
PCA = "PCA of the encoder's width"
BAG = "bag of pieces"
UNTRAINED = "untrained encoder"
PRE_TRAINED = "pre-trained encoder"
"""where features come from; a label that needs none is `MAJORITY`"""

LINEAR, NEIGHBOURS, FINE_TUNED = "linear probe", "k-NN", "fine-tuned"
"""how labels are told from them"""

TOLD_BY_TEXT = 0.95
"""from this accuracy of a bag of its pieces on, the text is said to give the label away (our choice)"""


@dataclass(frozen=True)
class ClassificationRow:
    """One classifier on the test records."""

    source: str
    shown: Shown | None
    """None where no record is looked at"""
    way: str
    accuracy: Estimate
    macro_f1: Estimate
    chosen: str | None
    """what was chosen on val"""


@dataclass(frozen=True)
class ClassificationResult:
    """How well a column is told; intervals are over test records, one fine-tuning seed."""

    column: str
    num_train: int
    num_val: int
    num_test: int
    num_labels: int
    """that training records have"""
    num_rare_labels: int
    """that fewer than ten of them have"""
    num_unseen: int
    """test records with a label that no training record has; all classifiers are wrong on them"""
    num_without: int
    """records without a label, left out"""
    num_texts_in_train: int
    """test records whose text a training record has too"""
    num_pictures_in_train: int
    rows: list[ClassificationRow]
    differences: list[Difference]

    def tables(self) -> list[ResultTable]:
        """One table, the picture alone first."""
        order = ["image", "text", "both"]
        rows = sorted(self.rows, key=lambda row: order.index(row.shown or "image"))
        return [
            ResultTable(
                f"Telling {self.column}",
                f"{self.num_labels} labels; trained on {self.num_train} records, chosen on {self.num_val} of val, "
                f"measured on {self.num_test} of test. Pre-training is worth its while where its rows are above raw "
                "pixels and above the untrained encoder. Intervals are over test records.",
                [
                    {
                        "shown": row.shown,
                        "features": row.source,
                        "told by": row.way,
                        "accuracy": row.accuracy,
                        "macro F1": row.macro_f1,
                        "chosen on val": row.chosen,
                    }
                    for row in rows
                ],
            )
        ]

    def verdict(self) -> list[str]:
        """Where raw pixels are better first, then what gives the label away, then the rest."""
        worse_than_pixels = [one for one in self.differences if one.is_below and PIXELS in one.than]
        others = [one for one in self.differences if one not in worse_than_pixels]
        return [
            *(one.sentence() for one in worse_than_pixels),
            *self._told_by_text(),
            *(one.sentence() for one in others),
            *self._counts(),
        ]

    def _told_by_text(self) -> list[str]:
        sentences = []
        bag = [row.accuracy.mean for row in self.rows if row.source == BAG]
        if bag and max(bag) >= TOLD_BY_TEXT:
            sentences.append(
                f"the text gives the label away: a bag of its pieces alone tells {max(bag):.3f} of the labels, so only "
                "what is told from the picture alone says anything of the encoder"
            )
        if 2 * self.num_texts_in_train >= self.num_test:
            sentences.append(
                f"texts repeat: {self.num_texts_in_train} of {self.num_test} test records have a text that training "
                "records have too, which need only be recognised"
            )
        return sentences

    def _counts(self) -> list[str]:
        sentences = []
        if self.num_unseen > 0:
            sentences.append(
                f"{self.num_unseen} of {self.num_test} test records have a label that no training record has; they "
                "count as wrong in every row"
            )
        if self.num_rare_labels > 0:
            sentences.append(
                f"{self.num_rare_labels} of {self.num_labels} labels have fewer than ten training records; macro F1 "
                "weighs them as much as the others"
            )
        if self.num_pictures_in_train > 0:
            sentences.append(
                f"{self.num_pictures_in_train} of {self.num_test} test records have a picture that a training record "
                "has too, pixel by pixel"
            )
        return sentences
