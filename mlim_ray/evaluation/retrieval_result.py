"""What retrieval found, as figures, tables and sentences."""

from dataclasses import dataclass
from typing import Literal

from mlim_ray.evaluation.difference import Difference
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.result import ResultTable

Direction = Literal["title to picture", "picture to title"]

CHANCE = "chance"
FROZEN = "frozen encoder"
LINEAR = "no encoder: raw pixels and bag of pieces, contrastive"
UNTRAINED = "untrained encoder, contrastive"
CONTRASTIVE = "pre-trained encoder, contrastive"
RERANKED = "the same, its best re-ranked by masked likelihood"


@dataclass(frozen=True)
class RetrievalRow:
    """One way of scoring, in one direction; recalls in [0, 1], ranks from 1."""

    direction: Direction
    way: str
    recall_1: Estimate
    recall_5: Estimate
    recall_10: Estimate
    median_rank: Estimate
    recall_10_new: Estimate | None
    """of queries whose right titles no training record has; None where there are none"""


@dataclass(frozen=True)
class RetrievalResult:
    """How well titles and pictures find each other; intervals are over queries, one fine-tuning seed."""

    num_records: int
    """test records of the pool"""
    num_titles: int
    """distinct ones: queries in one direction, candidates in the other"""
    num_pictures: int
    num_titles_in_train: int
    """of the distinct ones, those that a training record has too"""
    num_without_text: int
    """records left out"""
    num_train: int
    num_reranked: int
    rows: list[RetrievalRow]
    differences: list[Difference]

    def tables(self) -> list[ResultTable]:
        """One table, with a block for each direction."""
        return [
            ResultTable(
                "Finding the picture of a title and the title of a picture",
                f"{self.num_records} test records: {self.num_titles} different titles, {self.num_pictures} different "
                f"pictures; fine-tuned on {self.num_train} records. The share of queries with a right answer among the "
                "first 1, 5 and 10. Any record's picture with that title is right; ties count as their expected rank. "
                "Reconstruction alone does not align the two sides, so the frozen rows are expected near chance.",
                [
                    {
                        "direction": row.direction,
                        "scored by": row.way,
                        "R@1": row.recall_1,
                        "R@5": row.recall_5,
                        "R@10": row.recall_10,
                        "median rank": row.median_rank,
                        "R@10, title not in training": row.recall_10_new,
                    }
                    for row in self.rows
                ],
            )
        ]

    def verdict(self) -> list[str]:
        """Where pre-training did not help first, then the rest."""
        below = [one for one in self.differences if one.is_below]
        sentences = [one.sentence() for one in [*below, *(one for one in self.differences if not one.is_below)]]
        if self.num_titles < self.num_records:
            sentences.append(
                f"{self.num_records} records share {self.num_titles} titles: each counts once, and every picture that "
                "has it is a right answer"
            )
        if self.num_titles_in_train > 0:
            sentences.append(
                f"{self.num_titles_in_train} of {self.num_titles} titles occur in training too, so that what was "
                "fitted there has seen them; the last column leaves them out"
            )
        return sentences
