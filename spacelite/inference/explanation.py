"""Which words mattered: the exact share of every token in a text's logits.

Where a head's logits are a bias plus a mean over tokens (`heads.Head.token_logits`), each token's
share is exact: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.words import Words
from spacelite.cache.dtypes import stored_type
from spacelite.cache.store import Cache
from spacelite.data.splits import Source
from spacelite.heads.examples import Tokens
from spacelite.inference import layers, prediction
from spacelite.inference.cached import CachedExample, cached_example
from spacelite.inference.concepts import concept_points
from spacelite.inference.marks import Marked, marked
from spacelite.inference.prediction import OnProgress
from spacelite.inference.shares import Shares, require_shares
from spacelite.metrics import thresholds
from spacelite.runs import Run
from spacelite.tasks import SINGLE_LABEL, Task

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: The word as it was written, or a special token; if the text is not known, what the
            word's tokens spell.
        special: Whether its token is a special one. This includes unknown words.
        tokens: Indices of its tokens in the text.
        contributions: The word's share in each label's logit, (C,).
        unknown: Whether it is shown as it was written, but the backbone does not know it and sees
            the same token, such as [UNK], for all such words.
        blocks: The part of `contributions` that each block adds, (C,) each, if the head consists
            of several.
    """

    text: str
    special: bool
    tokens: list[int]
    contributions: list[float]
    unknown: bool = False
    blocks: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """A prediction and each word's share in it. Lists of length C are in the order of `labels`.

    Attributes:
        labels: The C label names.
        probabilities: Probability of each label.
        logits: Logits from the head's forward pass.
        bias: The part of each logit that belongs to no word.
        words: The text's words.
        difference: Largest difference between a logit and the sum of its bias and words.
        example: True label names if the text is a cached example, else None.
        spaces: The tokens in each label's concept space, C arrays (n, 1 to 3); empty for heads
            without concept spaces.
        task: Task of the labels.
        text: The text as it was written; None if it is not known.
        source: Where a cached example comes from; None if that is not known.
        layer_difference: Largest difference between a logit and the one from means as a cache
            stores them, if the hidden states of all layers were computed again; else None.
        thresholds: The probability above which a label is given, by label, if the run has decision
            thresholds.
    """

    labels: list[str]
    probabilities: list[float]
    logits: list[float]
    bias: list[float]
    words: list[Word]
    difference: float
    example: list[str] | None = None
    spaces: list[Array] = field(default_factory=list)
    task: Task = SINGLE_LABEL
    text: str | None = None
    source: Source | None = None
    layer_difference: float | None = None
    thresholds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The explanation as a JSON object, without the concept spaces. Contributions, bias and
        logits are those of each single logit."""
        content = asdict(replace(self, spaces=[]))
        del content["spaces"], content["task"]
        if not self.thresholds:
            del content["thresholds"]
        return {**content, "predicted": self.given}

    @property
    def predicted(self) -> int:
        """Index of the predicted label: of the most probable one if there are several or none."""
        among = [self.labels.index(name) for name in self.given] or range(len(self.labels))
        return max(among, key=lambda label: self.probabilities[label])

    @property
    def given(self) -> list[str]:
        """Names of the predicted labels; in a multi-label task there may be several or none."""
        limits = None
        if self.thresholds:
            names = self.task.threshold_labels(self.labels)
            limits = np.array([self.thresholds[name] for name in names])
        decided = self.task.decide(np.asarray(self.logits), limits)
        return self.task.label_names(decided, self.labels)

    @property
    def said(self) -> str:
        """The predicted labels with their probabilities: `positive (0.655)`, or `no label`."""
        chances = dict(zip(self.labels, self.probabilities, strict=True))
        return ", ".join(f"{name} ({chances[name]:.3f})" for name in self.given) or "no label"

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

    def legend(self, label: int) -> str:
        """What the numbers beside words mean."""
        own = f"what the word adds to the logit of {self.labels[label]}"
        if not self.task.beyond:
            return f"The number of a word is {own}."
        return (
            f"The number of a word is {own}, less the mean of what it adds to the logits of all "
            "labels, because only the differences between logits matter. Bias and logit are shown "
            "less their means too."
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
            "The hidden states of all layers were computed again; logits from means that are "
            f"rounded, as a cache stores them, differ by up to {self.layer_difference:.0e}."
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

    def marked(self, label: int) -> list[Marked]:
        """The text's words, marked by their shares in a label's logit."""
        return marked([word.text for word in self.words], self.shares[:, label].tolist())


def explain(
    run: Run,
    rows: Array,
    ids: Array,
    words: Sequence[tuple[str, bool, Sequence[int]]],
    logits: Array,
    example: list[str] | None = None,
    *,
    unknown: Collection[int] = (),
    text: str | None = None,
    source: Source | None = None,
    states: Array | None = None,
    layer_difference: float | None = None,
) -> Explanation:
    """Split a prediction into the shares of its words.

    Args:
        run: The run.
        rows: The text's hidden states in the stored type, n rows.
        ids: Its token ids, (n,).
        words: The text's words: spelling, whether it is a special token, and the indices of its
            tokens.
        logits: Logits from the head's forward pass, (C,).
        example: True label names if the text is a cached example.
        unknown: Indices of the tokens that stand for unknown words.
        text: The text as it was written, if it is known.
        source: Where a cached example comes from, if that is known.
        states: Its hidden states in all layers side by side, (n, layers * d), for a head that reads
            them.
        layer_difference: As in `Explanation`.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens.
    """
    head = Shares(run)
    hidden = stored_type(run.record.spec.dtype).decode(rows).astype(np.float64)
    wide = None if states is None else states.astype(np.float64)
    given = Tokens(hidden, ids, np.array([0, len(ids)]), wide)
    shares, of_blocks = head.of(given), head.of_blocks(given)
    unknown_tokens = set(unknown)
    explained = [
        Word(
            word,
            special,
            list(tokens),
            shares[list(tokens)].sum(axis=0).tolist(),
            not unknown_tokens.isdisjoint(tokens),
            {name: own[list(tokens)].sum(axis=0).tolist() for name, own in of_blocks.items()},
        )
        for word, special, tokens in words
    ]
    bias = head.bias.astype(np.float64)
    total = bias + np.sum([word.contributions for word in explained], axis=0)
    return Explanation(
        labels=head.labels,
        probabilities=head.task.probabilities(logits).tolist(),
        logits=np.asarray(logits, np.float64).tolist(),
        bias=bias.tolist(),
        words=explained,
        difference=float(np.abs(total - logits).max()),
        example=example,
        spaces=concept_points(run, hidden),
        task=head.task,
        text=text,
        source=source,
        layer_difference=layer_difference,
        thresholds=run.record.thresholds,
    )


def explain_text(
    run: Run,
    text: str,
    *,
    backbone: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Explanation:
    """Explain the prediction for a text.

    Args:
        run: The run.
        text: The text.
        backbone: Folder of the run's backbone, if it was a local one.
        device: Device of the backbone.
        on_progress: Called with the phase, the amount done and the total.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens, the text is empty, or the
            backbone is not the run's.
    """
    require_shares(run)
    files = prediction.backbone_files(run, backbone)
    states = difference = None
    if run.head.reads_layers:
        found = layers.of_text(run, text, files, device=device, on_progress=on_progress)
        hidden, ids, logits, states = found.hidden, found.ids, found.logits(run), found.states
        difference = float(np.abs(found.logits(run, rounded=True) - logits).max())
    else:
        hidden, ids, pooled = prediction.one_text(
            run, text, files, device=device, on_progress=on_progress
        )
        logits = _logits(run, hidden, ids, pooled)
    words = Words(files.folder)
    of_text = words.of(ids.tolist(), text)
    unknown = words.unknown(ids.tolist(), of_text)
    return explain(
        run, hidden, ids, of_text, logits,
        unknown=unknown, text=text, states=states, layer_difference=difference,
    )  # fmt: skip


def _logits(run: Run, hidden: Array, ids: Array, pooled: Array | None) -> Array:
    """The head's logits (C,) for a text, from its hidden states (n, d) and token ids (n,)."""
    if prediction.reads_ids(run):
        logits = prediction.id_logits(run, ids, np.array([0, len(ids)]))
    else:
        pooled = None if pooled is None else pooled[None]
        logits = prediction.head_logits(run, hidden[None], pooled, ids=ids[None])
    only: Array = logits[0]
    return only


def explain_example(
    run: Run,
    cache: Cache,
    location: str,
    *,
    backbone: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Explanation:
    """Explain the prediction for an example of the run's cache. The backbone is run only for heads
    that read all layers: the cache holds their means, and not the hidden states of each token.

    Args:
        run: The run.
        cache: The run's cache, open for reading.
        location: The example's split and index, such as `test:17`.
        backbone: Folder of the run's backbone, if it was a local one: its tokenizer defines the
            words.
        device: Device of the backbone.
        on_progress: Called with the phase, the amount done and the total.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens, or there is no such example.
    """
    require_shares(run)
    cache.check_index()
    found = cached_example(cache, location)
    files = prediction.backbone_files(run, backbone)
    words = Words(files.folder)
    split, _, number = location.partition(":")
    saved = run.predictions() if split == run.record.split else None
    known = saved is not None and len(saved.logits) == len(cache.splits[split])
    logits = saved.logits[int(number)] if saved is not None and known else None
    if run.head.reads_layers:
        again = layers.of_ids(run, found.token_ids, files, device=device, on_progress=on_progress)
        again = replace(again, hidden=found.hidden)  # what the cache holds stays as it is
        before = again.logits(run, rounded=True) if logits is None else logits
        logits = again.logits(run)
        difference = float(np.abs(before - logits).max())
        return explain_cached(
            run, found, words, logits, states=again.states, layer_difference=difference
        )
    if logits is None:
        logits = _logits(run, found.hidden, found.token_ids, found.pooled)
    return explain_cached(run, found, words, logits)


def explain_cached(
    run: Run,
    found: CachedExample,
    words: Words,
    logits: Array,
    *,
    states: Array | None = None,
    layer_difference: float | None = None,
) -> Explanation:
    """Explain the prediction for an example that was read from a cache.

    Args:
        run: The run.
        found: The example.
        words: Combines its tokens into words.
        logits: Logits from the head's forward pass, (C,).
        states, layer_difference: As in `explain`.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens.
    """
    ids = found.token_ids.tolist()
    of_text = words.of(ids, found.text)
    return explain(
        run,
        found.hidden,
        found.token_ids,
        of_text,
        logits,
        found.labels,
        unknown=words.unknown(ids, of_text),
        text=found.text,
        source=found.source,
        states=states,
        layer_difference=layer_difference,
    )
