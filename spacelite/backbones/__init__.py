"""Frozen transformers. In: a name and texts. Out: token ids, hidden states, words."""

from spacelite.backbones.files import BackboneFiles, locate
from spacelite.backbones.forward import (
    Forward,
    Output,
    check_budget,
    default_budget,
    layer_means,
    plan_batches,
)
from spacelite.backbones.model import (
    Backbone,
    check_layer,
    forward_precision,
    resolve_device,
)
from spacelite.backbones.tokenizer import (
    SpecialIds,
    Tokenized,
    from_ids,
    load_tokenizer,
    special_ids,
    tokenize,
)
from spacelite.backbones.unknown import MOSTLY, unknown_counts, unknown_shares
from spacelite.backbones.words import Words

__all__ = [
    "MOSTLY",
    "Backbone",
    "BackboneFiles",
    "Forward",
    "Output",
    "SpecialIds",
    "Tokenized",
    "Words",
    "check_budget",
    "check_layer",
    "default_budget",
    "forward_precision",
    "from_ids",
    "layer_means",
    "load_tokenizer",
    "locate",
    "plan_batches",
    "resolve_device",
    "special_ids",
    "tokenize",
    "unknown_counts",
    "unknown_shares",
]
