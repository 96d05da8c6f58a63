"""Which words mattered: the exact share of every token in a text's logits.

Where a head's logits are a bias plus a mean over tokens (`heads.Head.token_logits`), each token's
share is exact: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from spacelite import heads, pipeline
from spacelite.backbones.model import Forward, default_budget
from spacelite.backbones.tokenizer import Tokenized, Words, WordsOfIds, from_ids, held_words
from spacelite.cache import texts
from spacelite.cache.dtypes import stored_type
from spacelite.cache.split import TokenRows
from spacelite.cache.store import Cache
from spacelite.data.splits import Pair, Source, Text
from spacelite.document import decimals, figure, of_label, rounded, with_sign
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Tokens
from spacelite.inference.prediction import Predictor, backbone_files, head_logits, warn_of_truncated
from spacelite.lazy import torch
from spacelite.metrics import thresholds
from spacelite.progress import OnProgress
from spacelite.runs.store import Run
from spacelite.tasks import SINGLE_LABEL, Task
from spacelite.types import Array
from spacelite.visible import visible_name

WEAK = 0.1  # words at or below this share of the strongest contribution are not marked


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text."""

    text: str
    # `for` or `against` the label, or what raises or lowers a number; empty for a word that hardly
    # matters.
    side: str
    weight: float  # the size of its contribution relative to the largest one, in [0, 1]
    contribution: float  # its share in the label's logit, as in `Explanation.shares`
    # Of shares in a number, the largest one, which decides how they are written.
    strongest: float | None = None

    def share(self, places: int) -> str:
        """Its contribution as it is shown: `+0.12`, with so many decimals unless its size decides
        on them."""
        if self.strongest is None:
            return f"{self.contribution:+.{places}f}"
        return figure(self.contribution, self.strongest, signed=True).replace("−", "-")


def marked(words: Sequence[str], shares: Sequence[float], of_number: bool = False) -> list[Marked]:
    """Mark the words of a text that matter, given each word's share in a logit or number."""
    strongest = max(map(abs, shares), default=0.0) or 1.0
    text = []
    for word, share in zip(words, shares, strict=True):
        weight = abs(share) / strongest
        side = "" if weight <= WEAK else "for" if share > 0 else "against"
        text.append(Marked(word, side, weight, share, strongest if of_number else None))
    return text


@dataclass(frozen=True)
class Word:
    """A word of a text."""

    text: str  # as it was written, or a special token; what its tokens spell if that is not known
    special: bool  # whether its token is a special one, as those of unknown words are too
    tokens: list[int]  # their indices in the text
    contributions: list[float]  # its share in each label's logit, (C,)
    # Whether it is shown as it was written, but the backbone does not know it and sees the same
    # token, such as [UNK], for all such words.
    unknown: bool = False
    # What each block adds to `contributions`, (C,) each, if the head consists of several.
    blocks: dict[str, list[float]] = field(default_factory=dict)
    of_text: int | None = None  # which of a pair's texts it is in, 1 or 2; None for special tokens

    @property
    def name(self) -> str:
        """The word as tables list it, of a pair with the number of its text."""
        return self.text if self.of_text is None else f"{self.text} ({self.of_text})"


@dataclass(frozen=True)
class Explanation:
    """A prediction and each word's share in it. Lists of length C are in the order of `labels`."""

    labels: list[str]  # C names
    probabilities: list[float]
    logits: list[float]  # from the head's forward pass
    bias: list[float]  # the part of each logit that belongs to no word
    words: list[Word]
    difference: float  # the largest between a logit and the sum of its bias and words
    example: list[str] | None = None  # true label names if the text is a cached example
    # The tokens in each label's concept space, C arrays (n, 1 to 3); empty without such spaces.
    spaces: list[Array] = field(default_factory=list)
    task: Task = SINGLE_LABEL
    text: Text | None = None  # as it was written, if that is known
    source: Source | None = None  # where a cached example comes from, if that is known
    # The largest difference between a logit and the one from means as a cache stores them, if the
    # hidden states of all layers were computed again.
    layer_difference: float | None = None
    # The probability above which a label is given, by label, if the run has decision thresholds.
    thresholds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The explanation as a JSON object, without the concept spaces. Contributions, bias and
        logits are those of each single logit; of a number, the prediction is its `value`."""
        content = asdict(replace(self, spaces=[]))
        del content["spaces"], content["task"]
        if not isinstance(self.text, Pair):
            for word in content["words"]:
                del word["of_text"]
        if not self.thresholds:
            del content["thresholds"]
        if self.number is not None:
            for name in ("labels", "probabilities", "logits"):
                del content[name]
            exact = {"unrounded": self.logits[0]} if self.task.rounds else {}
            return {"value": self.number, **exact, **content}
        return {**content, "predicted": self.given}

    @property
    def number(self) -> float | None:
        """The predicted number; None where labels are predicted."""
        if self.task.has_probabilities:
            return None
        return float(self.task.given(np.array([self.logits]), self.labels)[0][0])

    @property
    def predicted(self) -> int:
        """Index of the predicted label: of the most probable one if there are several or none."""
        return self.all_predicted[0]

    @property
    def all_predicted(self) -> list[int]:
        """Indices of the predicted labels, most probable first; of the most probable label if none
        is predicted."""

        def order(label: int) -> float:
            return -self.probabilities[label]

        # What is given may be a number, and no name.
        known = (self.labels.index(name) for name in self.given if name in self.labels)
        given = sorted(known, key=order)
        return given or [min(range(len(self.labels)), key=order)]

    @property
    def given(self) -> list[str]:
        """Names of the predicted labels; in a multi-label task there may be several or none."""
        limits = thresholds.in_order(self.thresholds, self.task, self.labels)
        decided = self.task.decide(np.asarray(self.logits), limits)
        return self.task.label_names(decided, self.labels)

    @property
    def prediction(self) -> str:
        """The predicted labels with their probabilities: `positive (0.655)`, or `no label`; or the
        predicted number: `rating 3.7`."""
        if self.number is not None:
            whole, exact = of_label(self.number), of_label(self.logits[0])
            rounding = "" if whole == exact else f" ({exact} before rounding)"
            return f"{self.named(0)} {whole}{rounding}"
        chances = dict(zip(self.labels, self.probabilities, strict=True))
        given = (f"{name} ({decimals(chances[name], 3)})" for name in self.given)
        return visible_name(", ".join(given)) or "no label"

    @cached_property
    def shares(self) -> Array:
        """Each word's share in each label's logit, (W, C), as it is shown: as far as it affects the
        prediction (`Task.centred`). With one label per text that is the share less the mean of the
        word's shares over the labels; in a multi-label task the share itself."""
        return self.task.centred(np.array([word.contributions for word in self.words]))

    @cached_property
    def bias_shown(self) -> Array:
        """The bias of each label, (C,), shown in the same way as `shares`."""
        return self.task.centred(np.asarray(self.bias))

    @cached_property
    def logits_shown(self) -> Array:
        """The logit of each label, (C,), shown in the same way as `shares`."""
        return self.task.centred(np.asarray(self.logits))

    def named(self, label: int) -> str:
        """A label's name for readers; `value` for numbers that the data have no other name for."""
        if self.number is not None and self.labels == ["label"]:
            return "value"
        return visible_name(self.labels[label])

    def column(self, label: int) -> str:
        """The heading of shares in a label's logit, or in a number."""
        return f"{'for' if self.number is None else 'adds to'} {self.named(label)}"

    @property
    def sides(self) -> str:
        """What is shown of the words, before the name of the label or the number."""
        return "words for and against" if self.number is None else "words that raise and lower"

    def written(self, share: float) -> str:
        """A share, bias or logit with its sign, as tables show it: those of a number have a common
        power of ten, and the decimals that the largest share needs."""
        if self.number is None:
            return with_sign(share)
        strongest = float(np.abs(self.shares).max(initial=0.0))
        return figure(share, strongest, max(map(abs, (*self.bias, *self.logits))), signed=True)

    @property
    def exact(self) -> str:
        """How far the sum of bias and words is from the output at most: `5e-8`."""
        return rounded(max(self.difference, 1e-16))

    def legend(self, label: int | None) -> str:
        """What the numbers beside words mean, where the words of a label are shown; None for
        several labels, with a table each."""
        of = "the label that its table is for" if label is None else self.named(label)
        share = f"what the word adds to the {self.task.output} of {of}"
        if self.number is not None:
            share = f"what the word adds to the predicted {of}"
        pairs = "" if self.second is None else " (1) and (2) say which of the two texts it is in."
        if not self.task.beyond:
            return f"The number of a word is {share}.{pairs}"
        return (
            f"The number of a word is {share}, less the mean of what it adds to the logits of all "
            "labels, because only the differences between logits matter. Bias and logit are shown "
            f"less their means too.{pairs}"
        )

    @property
    def unknown(self) -> str:
        """Which words the backbone does not know, as a sentence; "" if it knows all."""
        words = dict.fromkeys(word.text for word in self.words if word.unknown)
        if not words:
            return ""
        return (
            f"Not known to the backbone, which sees the same token for all such words: "
            f"{', '.join(words)}."
        )

    @property
    def recomputed(self) -> str:
        """What was computed again, as a sentence; "" if nothing was."""
        if self.layer_difference is None:
            return ""
        return (
            f"The hidden states of all layers were computed again; {self.task.output}s from means "
            "that are rounded, as a cache stores them, differ by up to "
            f"{rounded(self.layer_difference)}."
        )

    @property
    def decided(self) -> str:
        """Which thresholds decided, as a sentence; "" if the run has none."""
        return thresholds.in_words(self.thresholds)

    def block_shares(self, name: str) -> Array:
        """Each word's share from one block of the head, (W, C), shown in the same way as
        `shares`."""
        return self.task.centred(np.array([word.blocks[name] for word in self.words]))

    @property
    def block_names(self) -> list[str]:
        """The blocks of a head that consists of several."""
        return list(self.words[0].blocks) if self.words else []

    @property
    def second(self) -> int | None:
        """The index of the first word of a pair's second text; None if there is none."""
        return next((i for i, word in enumerate(self.words) if word.of_text == 2), None)

    def shown(self, label: int) -> tuple[list[str], list[float]]:
        """The text's words and their shares in a label's logit, with a bar between the two texts of
        a pair."""
        words, shares = [word.text for word in self.words], self.shares[:, label].tolist()
        if self.second is not None:
            words.insert(self.second, "|")
            shares.insert(self.second, 0.0)
        return words, shares

    def marked(self, label: int) -> list[Marked]:
        """The text's words, marked by their shares in a label's logit."""
        return marked(*self.shown(label), self.number is not None)


def has_shares(run: Run) -> bool:
    """Whether a head's logits are a sum over tokens whose hidden states are in the cache."""
    additive = heads.kind(run.head.kind).not_additive(run.head) is None
    return additive and not run.head.reads_layers


def require_shares(run: Run) -> None:
    """Raise SpaceliteError for a head whose logits are not a sum over tokens."""
    reason = heads.kind(run.head.kind).not_additive(run.head)
    if reason is not None:
        raise SpaceliteError(
            f"run {run.id} cannot be explained: {reason}; explain a space head, additive, tfidf, "
            "or a linear head, logreg or ridge on the mean of the tokens or on all layers"
        )


def concept_points(run: Run, hidden: Array, most: int = 3) -> list[Array]:
    """A text's tokens in the concept space of each label: C arrays (n, min(L, most)) from hidden
    states (n, d); none for a head without concept spaces, or of which validation kept the start. A
    space of more than `most` dimensions is projected onto the tokens' first principal axes; the
    origin stays where it is."""
    kind = heads.kind(run.head.kind)
    coordinates = kind.coordinates(run.parameters, hidden.astype(np.float64))
    if coordinates is None or run.record.is_start:
        return []
    spaces = np.split(coordinates, len(run.record.label_names), axis=1)
    return [space if space.shape[1] <= most else _principal(space, most) for space in spaces]


def _principal(points: Array, count: int) -> Array:
    """Project points (n, L) onto their first `count` principal axes, (n, count)."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=len(points) < count)
    axes = axes[:count]
    # The sign of an axis is arbitrary: make its largest component positive.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    projected: Array = points @ (axes * np.sign(largest)[:, None]).T
    return projected


@dataclass(frozen=True)
class Passage:
    """A text to explain; what else is known of it, as in `Explanation`."""

    rows: TokenRows  # its hidden states and token ids; the pooler's output if it is known
    text: Text | None = None
    labels: list[str] | None = None  # of a cached example
    source: Source | None = None


def cached_example(cache: Cache, location: str) -> Passage:
    """The example of a cache at a location such as `test:17`."""
    name, _, number = location.partition(":")
    split = cache.splits.get(name)
    if split is None or not number.isdecimal() or int(number) >= len(split):
        known = ", ".join(f"{key}:0 to {key}:{len(of) - 1}" for key, of in cache.splits.items())
        raise SpaceliteError(f"example={location}: give one of {known}", ["example"])
    row = int(number)
    if not split.done[row]:
        raise SpaceliteError(
            f"example={location} is not embedded in cache {cache.name}: run its embed command "
            "again",
            ["example"],
        )
    first, last = split.offsets[row : row + 2].tolist()
    rows = TokenRows.of_batch(
        split.stored,
        split.read_examples(row, row + 1)[None],
        split.read_pooled(row, row + 1) if split.has_pooler else None,
        token_ids=split.read_token_ids(first, last),
    )
    written = texts.read(cache, name)
    return Passage(
        rows,
        None if written is None else written.text(row),
        cache.task.label_names(split.labels[row], cache.label_names),
        None if written is None else written.source(row),
    )


def explain(
    run: Run, passage: Passage, words: Words, logits: Array, layer_difference: float | None = None
) -> Explanation:
    """Split a prediction, of which the head's forward pass gave the `logits` (C,), into the shares
    of its words."""
    require_shares(run)
    kind, parameters, task = heads.kind(run.head.kind), run.parameters, run.record.task
    rows = passage.rows
    tokens = Tokens(
        rows.stored.decode(rows.rows).astype(np.float64),
        rows.token_ids,
        rows.offsets,
        rows.layer_states.astype(np.float64) if len(rows.layer_states) else None,
    )
    shares = kind.token_shares(run.head, parameters, tokens)
    of_blocks = kind.block_shares(run.head, parameters, tokens)
    if len(of_blocks) == 1:
        of_blocks = {}
    ids = tokens.ids.tolist()
    of_text = words.of(ids, passage.text)
    unknown = set(words.unknown(ids, of_text))
    second = words.second(ids, passage.text)
    explained = [
        Word(
            word,
            special,
            list(indices),
            shares[list(indices)].sum(axis=0).tolist(),
            not unknown.isdisjoint(indices),
            {name: block[list(indices)].sum(axis=0).tolist() for name, block in of_blocks.items()},
            None
            if second is None or (special and unknown.isdisjoint(indices))
            else 1 + (indices[0] >= second),
        )
        for word, special, indices in of_text
    ]
    bias = kind.bias(parameters).astype(np.float64)
    total = bias + np.sum([word.contributions for word in explained], axis=0)
    return Explanation(
        labels=list(run.record.label_names),
        probabilities=task.probabilities(logits).tolist(),
        logits=np.asarray(logits, np.float64).tolist(),
        bias=bias.tolist(),
        words=explained,
        difference=float(np.abs(total - logits).max()),
        example=passage.labels,
        spaces=concept_points(run, tokens.hidden),
        task=task,
        text=passage.text,
        source=passage.source,
        layer_difference=layer_difference,
        thresholds=run.record.thresholds,
    )


def explain_text(
    run: Run,
    text: Text,
    *,
    backbone: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Explanation:
    """Explain the prediction for a text, or for a pair."""
    require_shares(run)
    predictor = Predictor(run, backbone=backbone, device=device)
    tokens = predictor.tokenize([text], on_progress)
    warn_of_truncated(run, tokens.truncated, 1)
    ((_, explanation),) = explain_tokens(predictor, [text], tokens, on_progress)
    return explanation


def explain_tokens(
    predictor: Predictor,
    texts: Sequence[Text],
    tokens: Tokenized,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Generator[tuple[int, Explanation]]:
    """Explain the predictions of a predictor's run for texts, of which it made the tokens: yield
    the index of each text and its explanation, in batches of equal length."""
    run, spec = predictor.run, predictor.run.record.spec
    words = held_words(predictor.files, spec.prefix, spec.skip_first)
    if run.head.reads_layers:
        batches = _all_layers(predictor, tokens, on_progress)
    elif run.head.reads_only_ids:
        batches = (batch for batch in [(np.arange(len(texts)), TokenRows.of_ids(tokens.kept))])
    else:
        batches = predictor.hidden_states(tokens, on_progress)
    with pipeline.reading(batches) as results:
        for batch, rows in results:
            differences: list[float | None] = [None] * len(batch)
            if run.head.reads_layers:
                logits = _layer_logits(run, rows)
                of_rounded = _layer_logits(run, rows, rounded=True)
                differences = np.abs(of_rounded - logits).max(axis=1).tolist()
            else:
                logits = head_logits(run, rows)
            for row, text in enumerate(batch.tolist()):
                passage = Passage(rows.part(np.array([row])), texts[text])
                yield text, explain(run, passage, words, logits[row], differences[row])


def explain_example(
    run: Run,
    cache: Cache,
    location: str,
    *,
    backbone: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Explanation:
    """Explain the prediction for an example of the run's cache, such as `test:17`. The backbone is
    run only for heads that read all layers: the cache holds their means, and not the hidden states
    of each token."""
    require_shares(run)
    cache.check_index()
    passage = cached_example(cache, location)
    words: Words
    spec = run.record.spec
    if cache.spec.is_imported:
        if not cache.has_token_ids:
            raise SpaceliteError(
                f"cache {cache.name} was imported without token ids: an example has no words to "
                "explain it by"
            )
        words, passage = WordsOfIds(), replace(passage, text=None)  # words of ids, not of the text
    else:
        words = held_words(backbone_files(run, backbone), spec.prefix, spec.skip_first)
    split, _, number = location.partition(":")
    saved = run.predictions() if split == run.record.split else None
    known = saved is not None and len(saved.logits) == len(cache.splits[split])
    logits = saved.logits[int(number)] if saved is not None and known else None
    if run.head.reads_layers:
        predictor = Predictor(run, backbone=backbone, device=device)
        if not (spec.skip_first or spec.pairs):
            tokens = from_ids(
                predictor.files,
                passage.rows.token_ids,
                max_length=spec.max_length,
                padding=spec.padding,
                stride=spec.stride,
            )
        elif passage.text is not None:
            tokens = predictor.tokenize([passage.text], on_progress)
        else:
            raise SpaceliteError(
                f"example={location}: cache {cache.name} has neither its text nor its first token "
                "(skip_first), or where the second text of its pair begins: give the text itself",
                ["example"],
            )
        ((_, again),) = _all_layers(predictor, tokens, on_progress)
        # What the cache holds stays as it is.
        rows = replace(passage.rows, layer_states=again.layer_states)
        before = _layer_logits(run, rows, rounded=True)[0] if logits is None else logits
        (logits,) = _layer_logits(run, rows)
        difference = float(np.abs(before - logits).max())
        return explain(run, replace(passage, rows=rows), words, logits, difference)
    if logits is None:
        (logits,) = head_logits(run, passage.rows)
    return explain(run, passage, words, logits)


def _all_layers(
    predictor: Predictor, tokens: Tokenized, on_progress: OnProgress
) -> Generator[tuple[Array, TokenRows]]:
    """Batches of texts of equal length, as `Predictor.hidden_states` yields them, with their hidden
    states in all layers, of which a cache holds only the means. Their mean over all tokens is that
    of the text's own ones: those of padding are 0, and the others are scaled accordingly."""
    model, stored = predictor.model, stored_type(predictor.run.record.spec.dtype)
    every = model.reading(layer=0, others=tuple(range(1, model.layers)))
    # Also on a GPU: all layers of many texts would take gigabytes.
    limit = predictor.tokens_per_batch or default_budget("cpu")
    forward = Forward(every, tokens, lambda hidden: hidden, limit)
    kept = tokens.kept
    every_text = np.arange(len(kept))
    with pipeline.reading(forward.texts(every_text, lambda *pair: pair, on_progress)) as results:
        for batch, output in results:
            states = np.concatenate(output.states, axis=2)
            if tokens.masks is not None:
                masks = np.stack([tokens.masks[text] for text in batch])
                scale = masks.shape[1] / masks.sum(axis=1, keepdims=True)
                states = states * (masks * scale)[:, :, None].astype(np.float32)
            own = output.states[predictor.run.record.spec.layer]
            hidden = torch.from_numpy(own).to(model.device)
            for reduce in predictor.reduce:
                hidden = reduce(hidden)
            ids = np.stack([kept[text] for text in batch])
            rows = TokenRows.of_batch(stored, stored.encode(hidden), token_ids=ids)
            yield batch, replace(rows, layer_states=states.reshape(-1, states.shape[2]))


def _layer_logits(run: Run, rows: TokenRows, *, rounded: bool = False) -> Array:
    """A head's logits (N, C) from the means of the layer states of N texts of equal length;
    `rounded` as in a cache."""
    states = rows.layer_states.reshape(len(rows), -1, rows.layer_states.shape[1])
    means = states.mean(axis=1, dtype=np.float64).astype(np.float16 if rounded else np.float32)
    return head_logits(run, replace(rows, layer_means=means))
