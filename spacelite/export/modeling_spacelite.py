"""A frozen transformer with a small classifier on top of it, as spacelite trains them: everything
between token ids and logits. It needs torch and transformers, and not spacelite.

Shapes: B texts, n tokens of each row of token ids, C labels, d hidden width. A text is one row,
unless long texts are run in windows: then `places` says where each of its k tokens is in the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

# The key of an n-gram: of a 1-gram its id; of a 2-gram (first id + 1) << FIRST | second id; of a
# 3-gram LONGER | its ids, PLACE bits each.
FIRST, PLACE, LONGER = 32, 20, 1 << 62
# Hidden states are rounded as they were stored when the classifier was trained: int8 in steps of
# 1/127 of a token's largest value, int4 in steps of 1/8 of that of GROUP dimensions.
INT8_SCALES, INT4_SCALES, GROUP = (2.0**-126, 2.6793883e36), (2.0**-126, 2.0**125 - 2.0**116), 64


class SpaceliteConfig(PretrainedConfig):  # type: ignore[misc]
    """What a classifier consists of.

    Args:
        backbone: The config of the transformer.
        backbone_class: Its class, where that is not what AutoModel gives, such as T5EncoderModel.
        layer: Whose hidden states are read: -1 the output, 0 the embeddings.
        stored: The number type that hidden states are rounded to.
        reduced: [d, K] if they are projected on K principal axes; None if they are read whole.
        segments: Whether the transformer takes token_type_ids.
        padded: Whether padding is read like other tokens, as in training on padded texts.
        skip_first: Whether the first token is run, but not read.
        blocks: What the logits are the sum of, beside a bias: objects with the `kind` of a block,
            one of BLOCKS, and its sizes.
        problem_type: single_label_classification or multi_label_classification.
    """

    model_type = "spacelite"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        backbone_class: str | None = None,
        layer: int = -1,
        stored: str = "float32",
        reduced: list[int] | None = None,
        segments: bool = False,
        padded: bool = False,
        skip_first: bool = False,
        blocks: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone, self.backbone_class = backbone, backbone_class
        self.layer, self.stored, self.reduced = layer, stored, reduced
        self.segments, self.padded, self.skip_first = segments, padded, skip_first
        self.blocks = blocks or []
        super().__init__(**kwargs)


class Read(NamedTuple):
    """What blocks read of B texts. Weights are 0 for tokens that are not the text's."""

    hidden: Tensor  # hidden states of the layer, (B, n, d)
    kept: Tensor  # which tokens are read, (B, n) bool
    weights: Tensor  # of tokens in the mean of `hidden`, (B, n)
    own: Tensor  # of tokens in the means of layers, without padding, (B, n)
    layers: list[
        Tensor
    ]  # hidden states of all layers, (B, n, d) each; empty if no block reads them
    pooled: Tensor | None  # the output of the transformer's pooler, (B, d)
    ids: Tensor  # token ids, (B, n)

    @property
    def means(self) -> Tensor:
        """The means of all layers side by side, (B, layers * d), rounded as they were stored."""
        means = [(self.own[:, None] @ states)[:, 0] for states in self.layers]
        return torch.cat(means, dim=1).to(torch.float16).float()

    def vector(self, pooling: str) -> Tensor:
        """One vector per text, (B, p)."""
        if pooling == "layers":
            return self.means
        if pooling == "pooler":
            assert self.pooled is not None  # noqa: S101 - the config says that there is a pooler
            return self.pooled
        if pooling == "max":
            return self.hidden.masked_fill(~self.kept[:, :, None], -torch.inf).amax(dim=1)
        weights = self.weights
        if pooling != "mean":
            number = self.kept.long().cumsum(dim=1)
            chosen = number == (1 if pooling == "first" else number[:, -1:])
            weights = (chosen & self.kept).to(self.hidden.dtype)
        return (weights[:, None] @ self.hidden)[:, 0]


class Space(nn.Module):
    """Concept spaces: a linear layer on the mean of each token's tanh(W x + b)."""

    additive = True

    def __init__(self, labels: int, width: int, dimensions: int, bias: bool) -> None:
        super().__init__()
        self.concept_spaces = nn.Linear(width, dimensions, bias=bias)
        self.classifier = nn.Linear(dimensions, labels, bias=False)

    def forward(self, read: Read) -> Tensor:
        """Logits, (B, C)."""
        coordinates = torch.tanh(self.concept_spaces(read.hidden))
        logits: Tensor = self.classifier((read.weights[:, None] @ coordinates)[:, 0])
        return logits

    def shares(self, read: Read) -> Tensor:
        """What each token adds to the logits, (B, n, C)."""
        of_tokens: Tensor = self.classifier(torch.tanh(self.concept_spaces(read.hidden)))
        return of_tokens * read.weights[..., None]


class Attention(nn.Module):
    """Units gelu(u . x + b) of each token, averaged by attention, and a linear layer on the means.
    Each query weighs tokens for `units` units."""

    additive = True

    def __init__(self, labels: int, width: int, queries: int, units: int) -> None:
        super().__init__()
        self.units = nn.Linear(width, queries * units)
        self.queries = nn.Linear(width, queries, bias=False)
        self.classifier = nn.Linear(queries * units, labels, bias=False)

    def forward(self, read: Read) -> Tensor:
        """Logits, (B, C)."""
        return self.shares(read).sum(dim=1)

    def shares(self, read: Read) -> Tensor:
        """What each token adds to the logits, (B, n, C)."""
        scores = self.queries(read.hidden).masked_fill(~read.kept[:, :, None], -torch.inf)
        attention = scores.softmax(dim=1)[..., None]  # (B, n, queries, 1)
        values = nn.functional.gelu(self.units(read.hidden)).view(*scores.shape, -1)
        shares: Tensor = self.classifier((attention * values).flatten(2))
        return shares


class Linear(nn.Module):
    """A linear layer on one vector per text; `double` in double precision, where weights are large
    and what they add nearly cancels out."""

    def __init__(self, labels: int, width: int, pooling: str, double: bool = False) -> None:
        super().__init__()
        self.pooling, self.precision = pooling, torch.float64 if double else torch.float32
        self.weight = nn.Parameter(torch.zeros(labels, width))

    @property
    def additive(self) -> bool:
        """Whether the vector is a mean over tokens."""
        return self.pooling in ("mean", "layers")

    def forward(self, read: Read) -> Tensor:
        """Logits, (B, C)."""
        return read.vector(self.pooling).to(self.precision) @ self.weight.to(self.precision).T

    def shares(self, read: Read) -> Tensor:
        """What each token adds to the logits, (B, n, C). In double precision, as above."""
        states, weights = [read.hidden], read.weights
        if self.pooling == "layers":
            states, weights = read.layers, read.own
        parts = self.weight.double().chunk(len(states), dim=1)
        of_tokens = sum(
            (layer.double() @ part.T for layer, part in zip(states, parts, strict=True)),
            torch.zeros((), dtype=torch.float64),
        )
        return (of_tokens * weights[..., None]).float()


class MLP(nn.Module):
    """Two linear layers with a ReLU between them on one vector per text."""

    additive = False

    def __init__(self, labels: int, width: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.pre_classifier = nn.Linear(width, width)
        self.classifier = nn.Linear(width, labels, bias=False)

    def forward(self, read: Read) -> Tensor:
        """Logits, (B, C)."""
        logits: Tensor = self.classifier(self.pre_classifier(read.vector(self.pooling)).relu())
        return logits


class NGrams(nn.Module):
    """A linear layer on TF-IDF of n-grams of token ids."""

    additive = True
    keys: Tensor
    idf: Tensor

    def __init__(self, labels: int, count: int, longest: int, sublinear: bool) -> None:
        super().__init__()
        self.longest, self.sublinear = longest, sublinear
        self.register_buffer("keys", torch.zeros(count, dtype=torch.int64))  # ascending
        self.register_buffer("idf", torch.zeros(count))
        self.weight = nn.Parameter(torch.zeros(labels, count))

    def forward(self, read: Read) -> Tensor:
        """Logits, (B, C)."""
        return self.shares(read).double().sum(dim=1)

    def shares(self, read: Read) -> Tensor:
        """What each token adds to the logits, (B, n, C): each time that an n-gram occurs, an equal
        part of what it adds to its text's logits, in equal parts for its tokens."""
        shares = read.hidden.new_zeros(*read.ids.shape, len(self.weight), dtype=torch.float64)
        weight = self.weight.T.double()
        for ids, kept, of_text in zip(read.ids, read.kept, shares, strict=True):
            first, length, column = self._known(ids[kept])
            columns, cell, counts = torch.unique(column, return_inverse=True, return_counts=True)
            counted = 1 + counts.double().log() if self.sublinear else counts.double()
            values = counted * self.idf[columns].double()
            size = values.norm() if len(values) else values.new_ones(())
            added = (values / counts / size)[cell] / length
            parts = added[:, None] * weight[column]
            own = of_text.new_zeros(int(kept.sum()), len(self.weight))
            for position in range(self.longest):
                long = length > position
                own.index_add_(0, first[long] + position, parts[long])
            of_text[kept] = own
        return shares

    def _known(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each time that a known n-gram occurs in a text its first token, its number of tokens
        and its column."""
        ids = ids.long()
        keys = [ids, (ids[:-1] + 1) << FIRST | ids[1:]]
        firsts = [torch.arange(len(key), device=ids.device) for key in keys]
        if self.longest > 2 and len(ids) > 2:
            one, two, three = ids[:-2], ids[1:-1], ids[2:]
            fits = (torch.maximum(torch.maximum(one, two), three) >> PLACE) == 0
            keys.append((one << 2 * PLACE | two << PLACE | three | LONGER)[fits])
            firsts.append(torch.arange(len(one), device=ids.device)[fits])
        lengths = [torch.full_like(first, size) for size, first in enumerate(firsts, 1)]
        key, first, length = torch.cat(keys), torch.cat(firsts), torch.cat(lengths)
        if not len(self.keys):
            return first[:0], length[:0], first[:0]
        column = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        known = self.keys[column] == key
        return first[known], length[known], column[known]


BLOCKS: dict[str, type[nn.Module]] = {
    "space": Space,
    "attention": Attention,
    "linear": Linear,
    "mlp": MLP,
    "ngrams": NGrams,
}


class Reduction(nn.Module):
    """Hidden states on their principal axes."""

    mean: Tensor
    axes: Tensor

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.zeros(count, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, n, d) -> (B, n, K)."""
        return (hidden - self.mean) @ self.axes.T


def rounded(hidden: Tensor, stored: str) -> Tensor:
    """Hidden states (..., d) float32 as they are read back from a number type that stores them."""
    if stored in ("float16", "bfloat16"):
        return hidden.to(getattr(torch, stored)).float()
    if stored == "int8":
        scale = (hidden.abs().amax(dim=-1, keepdim=True) / 127).clamp(*INT8_SCALES)
        return (hidden / scale).round() * scale
    if stored == "int4":
        width = hidden.shape[-1]
        padded = nn.functional.pad(hidden, (0, -width % GROUP))
        groups = padded.reshape(*hidden.shape[:-1], -1, GROUP)
        least, most = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
        largest = torch.where(-least > most, least, most)
        size = (largest.abs() / 8).clamp(*INT4_SCALES)
        scale = torch.where(largest > 0, -size, size).to(torch.bfloat16).float()
        values: Tensor = ((groups / scale).round().clamp(-8, 7) * scale).flatten(-2)
        return values[..., :width]
    return hidden


@dataclass
class SpaceliteOutput(ModelOutput):  # type: ignore[misc]
    """What a classifier gives for B texts."""

    logits: Tensor | None = None  # (B, C) float32
    probabilities: Tensor | None = None  # of each label, (B, C) float32
    # What each token adds to the logits, (B, n, C); with the bias, they sum to the logits. Only if
    # they were asked for.
    shares: Tensor | None = None


class SpaceliteForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """A transformer, and blocks on it whose logits are added up."""

    config_class = SpaceliteConfig
    base_model_prefix = "backbone"

    def __init__(self, config: SpaceliteConfig, backbone: nn.Module | None = None) -> None:
        """`backbone` is the transformer itself, if it is there already."""
        super().__init__(config)
        self.backbone = new_backbone(config) if backbone is None else backbone
        self.reduction = None if config.reduced is None else Reduction(*config.reduced)
        self.blocks = nn.ModuleList(
            BLOCKS[block["kind"]](
                config.num_labels, **{name: size for name, size in block.items() if name != "kind"}
            )
            for block in config.blocks
        )
        self.bias = nn.Parameter(torch.zeros(config.num_labels))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is trained from here: every weight is loaded."""

    @property
    def additive(self) -> bool:
        """Whether the logits are sums over tokens."""
        return all(bool(block.additive) for block in self.blocks)

    @property
    def reads_layers(self) -> bool:
        """Whether a block reads all layers."""
        return any(getattr(block, "pooling", None) == "layers" for block in self.blocks)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        places: Tensor | None = None,
        ngram_logits: Tensor | None = None,
        output_shares: bool = False,
        **kwargs: Any,
    ) -> SpaceliteOutput:
        """Classify B texts.

        Args:
            input_ids: (B, n).
            attention_mask: 1 for tokens and 0 for padding, (B, n). Default: without padding.
            token_type_ids: (B, n), if the transformer has segments.
            places: For texts in windows, which are the rows of `input_ids`: where the tokens of
                each text are in the rows end to end, (B, k), with -1 after its last.
            ngram_logits: What n-grams add to the logits, (B, C), in place of the block for them.
            output_shares: Also give the share of each token.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        read = self.read(input_ids, mask, token_type_ids, places)
        blocks: list[Any] = [
            block for block in self.blocks if ngram_logits is None or not isinstance(block, NGrams)
        ]
        total = self.bias.double()
        for block in blocks:
            total = total + block(read)
        if ngram_logits is not None:
            total = total + ngram_logits
        logits = total.float()
        shares = None
        if output_shares and self.additive:
            zeros = torch.zeros((), dtype=torch.float32, device=logits.device)
            shares = sum((block.shares(read) for block in blocks), zeros).float()
        several = self.config.problem_type == "multi_label_classification"
        probabilities = logits.sigmoid() if several else logits.softmax(dim=-1)
        return SpaceliteOutput(logits=logits, probabilities=probabilities, shares=shares)

    def read(
        self, ids: Tensor, mask: Tensor, type_ids: Tensor | None, places: Tensor | None
    ) -> Read:
        """Run the transformer."""
        config = self.config
        segments = {"token_type_ids": type_ids} if config.segments and type_ids is not None else {}
        every = self.reads_layers or config.layer != -1
        # XLNet's subtracts it from 1.0, which the ONNX exporter takes of floats alone.
        backbone: Any = self.backbone
        is_float = backbone.config.model_type == "xlnet"
        output = backbone(
            input_ids=ids,
            attention_mask=mask.float() if is_float else mask,
            output_hidden_states=every,
            **segments,
        )
        hidden = output.last_hidden_state
        if config.layer != -1:
            hidden = output.hidden_states[config.layer]
        layers = list(output.hidden_states) if self.reads_layers else []
        pooled = getattr(output, "pooler_output", None)
        own = mask > 0
        kept = torch.ones_like(own) if config.padded else own
        if places is not None:
            kept = own = places >= 0
            index = places.clamp(min=0)
            if pooled is not None:  # that of the first window
                pooled = pooled[index[:, 0] // ids.shape[1]]
            hidden, *layers, ids = (
                states.flatten(0, 1)[index] for states in (hidden, *layers, ids)
            )
        elif config.skip_first:
            number = own.long().cumsum(dim=1)
            kept = own = own & ((number > 1) | (number[:, -1:] == 1))
        hidden = hidden.float()
        if self.reduction is not None:
            hidden = self.reduction(hidden)
        return Read(
            hidden=rounded(hidden, config.stored),
            kept=kept,
            weights=kept / kept.sum(dim=1, keepdim=True),
            own=own / own.sum(dim=1, keepdim=True),
            layers=[states.float() for states in layers],
            pooled=None if pooled is None else pooled.float(),
            ids=ids,
        )


def new_backbone(config: SpaceliteConfig) -> nn.Module:
    """The transformer of a config, without its weights."""
    settings = dict(config.backbone or {})
    wanted = AutoConfig.for_model(settings.pop("model_type"), **settings)
    if config.backbone_class is not None:
        model = getattr(transformers, config.backbone_class)(wanted)
    else:
        model = AutoModel.from_config(wanted)
    if getattr(wanted, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.config.use_cache = False
    model.config.return_dict = True
    new: nn.Module = model
    return new
