"""Recipes: whole settings after MLIM's relatives, each as the knobs by which it differs from MLIM.

A recipe is named after a paper and is no reproduction of it: the model is ours in size and form, the data are whatever
the user has, and what a paper leaves open, or what this platform has not, stands in `differs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.run import PretrainConfig
from mlim_ray.config.wording import nearest, shown

Config = TypeVar("Config", bound=PretrainConfig)


@dataclass(frozen=True)
class Recipe:
    """One setting, by a short name."""

    name: str
    source: str
    """paper, and where its figures are from"""
    about: str
    """what it hides and what it learns from"""
    cost: str
    """passes through the encoder for each record of a step"""
    knobs: Mapping[str, object]
    """by dotted name, laid over MLIM's setting"""
    differs: tuple[str, ...] = ()
    """what is unknown of the paper, or otherwise here"""


_LISTENS: Mapping[str, object] = {"recon.detached": True, "recon.weight": 1.0}
"""no RECON; the decoder learns to paint what the encoder's states tell, and the encoder nothing from it"""

_RECIPES = (
    Recipe(
        "mlim",
        "MLIM (Arici et al. 2021, arXiv 2109.12178), by two summaries of it",
        "MAM at 80 %, MLM + RECON of all pixels, shallow CNN",
        "1 pass",
        {},
        ("grid, channel widths, light ratios, loss weights, optimiser and steps are not known: our choice",),
    ),
    Recipe(
        "mlim_itm",
        "MLIM's own ablation: ITM in place of RECON (PR AUC 0.855 against 0.884)",
        "MAM at 80 %, MLM + ITM, shallow CNN",
        "2 passes: one masked, one with titles exchanged",
        {**_LISTENS, "itm.weight": 1.0},
        ("how its ITM was trained is not known: half of the titles wrong, nothing hidden, as ViLT does",),
    ),
    Recipe(
        "vilt_style",
        "ViLT (Kim et al. 2021, arXiv 2102.03334)",
        "15 % of words, no cells (masked patches hurt there), MLM + ITM, linear patches",
        "2 passes: one masked, one with titles exchanged",
        {
            "model.embedder.kind": "linear_patches",
            "masking.kind": "independent",
            "masking.image_ratio": 0.0,
            "masking.text_ratio": 0.15,
            **_LISTENS,
            "itm.weight": 1.0,
        },
        (
            "its word-patch alignment is left out",
            "its head for ITM reads [CLS], ours the pooled state",
            "it starts from ViT weights and gives pictures their own shape",
        ),
    ),
    Recipe(
        "maskvlm_style",
        "MaskVLM (Kwon et al., ICLR 2023), by a review of it",
        "60 % of cells or 30 % of words, never both; MLM + RECON of hidden pixels (L1) + ITC + ITM, linear patches",
        "4 passes: one masked, one with titles exchanged, one for each side alone",
        {
            "model.embedder.kind": "linear_patches",
            "masking.kind": "blockwise",
            "masking.image_ratio": 0.6,
            "masking.text_ratio": 0.3,
            "masking.image_only_probability": 0.5,
            "masking.text_only_probability": 0.5,
            "masking.smallest_block_ratio": 0.0625,
            "masking.largest_block_ratio": 0.0625,
            "masking.smallest_aspect": 1.0,
            "recon.target": "masked",
            "recon.error": "absolute",
            "recon.weight": 1.0,
            "itm.weight": 1.0,
            "itc.weight": 1.0,
        },
        (
            "two encoders (ViT-B/16, RoBERTa) joined by cross-attention there, a single stream here",
            "each masked loss has a pass of its own there; here a record has one of the two",
            "blocks of 32 pixels there, squares of a sixteenth of the picture here",
            "momentum encoders and queues are left out",
        ),
    ),
    Recipe(
        "m3ae_geng",
        "M3AE (Geng et al. 2022; repository young-geng/m3ae_public)",
        "75 % of cells, removed, and 75 % of words; MLM at half weight + RECON of hidden pixels, linear patches",
        "1 pass, of whose layers all but the last see visible cells alone",
        {
            "model.embedder.kind": "linear_patches",
            "model.num_joint_layers": 1,
            "masking.kind": "independent",
            "masking.image_ratio": 0.75,
            "masking.text_ratio": 0.75,
            "mlm.weight": 0.5,
            # Its pixels are divided by ImageNet's deviation, 0.226, and errors averaged over channels: 1/(3 * 0.226^2).
            "recon.weight": 6.5,
            "recon.target": "masked",
        },
        (
            "a decoder of its own with type embeddings there; the encoder's last layer here",
            "hidden words are removed there, and [MASK] here",
            "text weight 0.5 by its README, 0.1 by its code; ratios by its ablation",
        ),
    ),
    Recipe(
        "m3ae_medical",
        "M3AE (Chen et al., MICCAI 2022, arXiv 2209.07098; repository zhjohnchan/M3AE)",
        "75 % of cells, removed, or 15 % of words; MLM + normalised hidden pixels + ITM, linear patches",
        "2 passes: one masked, one with titles exchanged",
        {
            "model.embedder.kind": "linear_patches",
            "model.num_joint_layers": 1,
            "masking.kind": "alternating",
            "masking.image_heavy_ratio": 0.75,
            "masking.text_heavy_ratio": 0.15,
            "recon.kind": "normalised",
            "itm.weight": 1.0,
        },
        (
            "CLIP and RoBERTa joined by six layers of co-attention there, a single stream from scratch here",
            "each loss has a pass of its own there; here a record has one of the two masked ones",
            "pixels are told from a middle layer by a small transformer there, from the last by two layers here",
        ),
    ),
    Recipe(
        "eve_style",
        "EVE (Chen et al. 2023, arXiv 2308.11971, AAAI 2024; repository ssyze/EVE, fine-tuning only)",
        "75 % of cells, removed, and 50 % of words; MLM + normalised hidden pixels, experts in the last two layers",
        "1 pass, of whose layers all but the last see visible cells alone",
        {
            "model.embedder.kind": "linear_patches",
            "model.encoder.kind": "mixture",
            "model.num_joint_layers": 1,
            "masking.kind": "independent",
            "masking.image_ratio": 0.75,
            "masking.text_ratio": 0.5,
            "recon.kind": "normalised",
        },
        (
            "its ratios are not published where we looked: 75 % and 50 % are from memory",
            "whether it normalises pixels, and whether it removes hidden cells, is not known; a field of its code "
            "suggests removal",
            "8 experts here, 32 there; its decoder is not known",
        ),
    ),
    Recipe(
        "fastmim_style",
        "FastMIM (Guo et al. 2022, arXiv 2212.06593; repository ggjy/FastMIM.pytorch)",
        "small pictures; MAM with 75 % of cells, MLM + histograms of oriented gradients of hidden cells, shallow CNN",
        "1 pass, over a third of the cells",
        {"masking.image_heavy_ratio": 0.75, "recon.kind": "hog", "resolution.start_ratio": 0.57},
        (
            "it has no text: the words, their masking and MLM are MLIM's",
            "hidden cells are one learned colour there, [MASK] here; linear patches and a transformer as decoder there",
        ),
    ),
    Recipe(
        "semmim_style",
        "SemMIM (Liu et al., LREC-COLING 2024, arXiv 2403.00249), by its abstract; MAMO (SIGIR 2023) by a review",
        "60 % of the cells, those that go with the title, or of the words; MLM + features of a slowly following copy "
        "of the encoder at hidden cells, shallow CNN",
        "3 passes, two of them without a way back",
        {"masking.kind": "text_attentive", "recon.kind": "features"},
        (
            "its learnable space of K dimensions, shared with a global feature, is left out: neither K nor the loss is "
            "known",
            "how its text guides which cells are hidden is not known: by the model's own states here",
            "its mask ratio, loss weights and the copy's decay are not known",
        ),
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
"""By name, MLIM first."""


def recipe_of(name: str) -> Recipe:
    """The recipe of a name. Raises ValueError for one that is not known."""
    if name not in RECIPES:
        guess = nearest(name, RECIPES)
        mend = f"did you mean {guess}?" if guess else "mlim-ray recipes tells of each"
        raise ValueError(f"given {shown(name)}, expected one of {', '.join(RECIPES)}; {mend}")
    return RECIPES[name]


def with_recipe(config: Config, name: str) -> Config:
    """The config with a recipe's knobs laid over it.

    Raises:
        ValueError: there is no such recipe, or it does not go with the config.
    """
    return with_knobs(config, recipe_of(name).knobs)
