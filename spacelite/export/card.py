"""The model card of an export: what it is, how good it is and how sure that is, what it was trained
on, where its limits are, and how it was made; with the front matter that the hub reads.

Blocks of reports say most of it, and are written as reports are: whatever labels and names hold is
escaped.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from typing_extensions import override

from spacelite import settings
from spacelite.cache import texts
from spacelite.cache.spec import CacheSpec, Encoding
from spacelite.cache.store import Cache
from spacelite.data.known import KNOWN
from spacelite.document import (
    Block,
    Bullets,
    Heading,
    Line,
    Paragraph,
    Table,
    decimals,
    p_value,
    with_sign,
)
from spacelite.errors import SpaceliteError
from spacelite.metrics import significance
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, Scores
from spacelite.metrics.significance import Interval
from spacelite.reports.analysis.comparisons import Analysis, analyse
from spacelite.reports.analysis.content import GroupFindings, data_notes, start_note
from spacelite.reports.analysis.groups import Group, grouped, mean_std
from spacelite.reports.document import wording
from spacelite.reports.document.sections import SECTIONS
from spacelite.reports.document.tables import figure_cell
from spacelite.reports.render.markup import Markdown
from spacelite.runs import store
from spacelite.runs.record import RunRecord, TransferRecord
from spacelite.runs.store import Run, find_cache
from spacelite.tasks import MULTI_LABEL
from spacelite.types import Array
from spacelite.visible import visible, visible_name

if TYPE_CHECKING:
    from spacelite.export.form import Form

CARD = "README.md"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # that the backbone minilm is, on the hub
# Backbones of which the languages are known here.
LANGUAGES = {"minilm": "English", MINILM: "English"}
MOST_LABELS = 20  # that the first paragraph lists
# Metric -> what the hub calls it. Precision and recall are those of class 1, or weighted.
OF_HUB = {"accuracy": "accuracy", "f1_macro": "f1", "auroc": "roc_auc"}
CAPTIONS = {"classes": "Figures of each label", "confusion": "Confusions"}
FEWEST = 30  # examples of a label from which on its figures say much


@dataclass(frozen=True)
class RoundedRun(Run):
    """A run as a form with rounded weights classifies: predictions and metrics are those of the
    form, on the only split but train that the record has."""

    given: Predictions
    before: Scores  # of the run itself, on the same split

    @classmethod
    def of(cls, run: Run, split: str, given: Predictions, scores: Scores) -> RoundedRun:
        """A run whose form gives these predictions of a split, which have these metrics."""
        metrics = run.record.metrics
        kept = {name: of for name, of in metrics.items() if name == "train"}
        record = replace(run.record, metrics={**kept, split: scores})
        return cls(run.folder, record, given, metrics.get(split, {}))

    @override
    def predictions(
        self, transfer: TransferRecord | None = None, split: str | None = None
    ) -> Predictions | None:
        return self.given


def model_card(
    run: Run,
    form: Form,
    comparison: str,
    use: str,
    cache_dir: Path,
    rounded: RoundedRun | None = None,
) -> str:
    """The card of a run in a form, in Markdown; `comparison` says how near the form is to
    `predict`, `use` shows in Markdown how it is used, and `rounded` is the run as the form gives
    it, if that has rounded weights."""
    record, shown = run.record, rounded or run
    predictions, known = shown.predictions(), of_cache(run, cache_dir)
    written = Markdown()
    title = f"{record.system} on {record.spec.backbone}, for {record.spec.dataset}"
    before: list[Block] = [Paragraph(summary(run)), Heading(1, "How to use it")]
    after: list[Block] = [
        Paragraph(f"{sentence(comparison)} {decision(record)}"),
        Heading(1, "How good it is"),
        Paragraph(about_figures(shown, predictions)),
        figures(shown, predictions),
        *seeds(shown),
        *details(shown, cache_dir),
        *baselines(shown, cache_dir),
        Heading(1, "What it was trained on"),
        Bullets(data(run, cache_dir, known)),
        Heading(1, "Limits"),
        Bullets(limits(run, known)),
        Heading(1, "How it was made"),
        Bullets(choices(run)),
        Paragraph(about_commands(record)),
    ]
    parts = [
        f"---\n{front_matter(shown, form)}---",
        f"# {written.escaped(title)}",
        *written.parts(before),
        use,
        *written.parts(after),
        fenced("\n".join(filter(None, (embed_command(record), train_command(record))))),
    ]
    return visible("\n\n".join(parts) + "\n")


def sentence(text: str) -> str:
    """A clause as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def fenced(code: str) -> str:
    """Code in Markdown, whatever it holds."""
    longest = max((len(found) for found in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}bash\n{code}\n{fence}"


# What the hub reads.


def front_matter(run: Run, form: Form) -> str:
    """The front matter, in YAML."""
    import yaml

    record = run.record
    metadata: dict[str, Any] = {
        "library_name": form.library,
        "pipeline_tag": "text-classification",
        "tags": ["spacelite", "text-classification", f"spacelite-{record.head.kind}"],
        "metrics": list(OF_HUB.values()),
    }
    if (base := base_model(record.spec)) is not None:
        metadata["base_model"] = base
    if (dataset := hub_dataset(record.spec)) is not None:
        metadata["datasets"] = [dataset]
    scores = record.metrics[record.split]
    measured = [
        {"type": name, "name": METRICS[metric].heading, "value": float(decimals(value, 4))}
        for metric, name in OF_HUB.items()
        if (value := scores.get(metric)) is not None and math.isfinite(value)
    ]
    name = visible_name(record.spec.dataset)
    result = {
        "task": {"type": "text-classification", "name": "Text classification"},
        "dataset": {"type": dataset or name, "name": name, "split": record.split},
        "metrics": measured,
    }
    metadata["model-index"] = [{"name": visible_name(run.name or run.id), "results": [result]}]
    text: str = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return text


def base_model(spec: CacheSpec) -> str | None:
    """The backbone's name on the hub; None if it is not from there."""
    if spec.backbone == "minilm":
        return MINILM
    return spec.backbone if spec.backbone_version.startswith("revision:") else None


def hub_dataset(spec: CacheSpec) -> str | None:
    """The data set's name on the hub; None if it is not from there."""
    known = KNOWN.get(spec.dataset)
    if known is not None:
        return KNOWN[known.of].hub if known.of else known.hub
    return spec.dataset if re.fullmatch(r"[\w.-]+/[\w.-]+", spec.dataset) else None


# What it is, and how good.


def summary(run: Run) -> str:
    """What the classifier does, and what it consists of."""
    record, spec = run.record, run.record.spec
    names = [visible_name(name) for name in record.label_names]
    listed = ", ".join(names[:MOST_LABELS]) + (
        f" and {len(names) - MOST_LABELS} more" if len(names) > MOST_LABELS else ""
    )
    several = record.task is MULTI_LABEL
    which = "any number of" if several else "one of"
    if record.head.reads_only_ids:
        what = (
            f"It reads the token ids of {spec.backbone}'s tokenizer alone: no transformer is run."
        )
    else:
        layer = "" if spec.layer == -1 else f" (layer {spec.layer})"
        what = f"It reads the hidden states of {spec.backbone}{layer}, which was not trained."
    trained = f"{record.train_params:,} parameters were trained"
    version = record.versions.get("spacelite")
    by = f"spacelite {version}" if version else "spacelite"
    return f"Gives a text {which} {len(names)} labels: {listed}. {what} {trained}, by {by}."


def decision(record: RunRecord) -> str:
    """How a label is decided on, as a sentence."""
    several = record.task is MULTI_LABEL
    limits = [(visible_name(name), decimals(value, 4)) for name, value in record.thresholds.items()]
    if not limits:
        if several:
            return "A text gets each label whose probability is above one half."
        return "A text gets its most probable label."
    if several:
        listed = ", ".join(f"{name} {value}" for name, value in limits)
        return f"A text gets each label whose probability is above its threshold: {listed}."
    ((name, value),) = limits
    (other,) = (visible_name(of) for of in record.label_names if of not in record.thresholds)
    return f"A text gets the label {name} if its probability is above {value}, and else {other}."


def figures(run: Run, predictions: Predictions | None) -> Table:
    """Every metric of the split that reports show, with its interval where there is one, and with
    rounded weights that of the run itself."""
    record = run.record
    intervals = {} if predictions is None else intervals_of(predictions)
    columns, lines = ["Metric", "Value", "95% interval"], []
    if isinstance(run, RoundedRun):
        columns.append("Before rounding")
    for name, metric in METRICS.items():
        value = record.metrics[record.split].get(name)
        if value is None or (name == "loss" and value == record.metrics[record.split].get("ce")):
            continue
        between = intervals.get(name)
        shown = "–" if between is None else " to ".join(decimals(end, 4) for end in between)
        cells = [metric.heading, decimals(value, 4), shown]
        if isinstance(run, RoundedRun):
            before = run.before.get(name)
            cells.append("–" if before is None else decimals(before, 4))
        lines.append(Line.of(*cells))
    return Table("Figures", columns, lines, "figures")


def intervals_of(predictions: Predictions) -> dict[str, Interval]:
    """95% intervals of metrics over the choice of examples."""
    count = len(predictions.labels)
    low, high = significance.of_mean(significance.f1_values(predictions))
    intervals = {
        "accuracy": significance.of_proportion(int(predictions.correct.sum()), count),
        "f1_macro": (max(low, 0.0), min(high, 1.0)),
        "ce": significance.resampled_mean(cross_entropies(predictions)),
    }
    return {name: value for name, value in intervals.items() if np.isfinite(value).all()}


def cross_entropies(predictions: Predictions) -> Any:
    """The cross-entropy of each example, (N,); in a multi-label task the mean over labels."""
    classes = predictions.logits.shape[1]
    truth = predictions.task.indicators(predictions.labels, classes)
    chances = np.clip(predictions.probabilities, 1e-300, 1.0)
    if predictions.task is MULTI_LABEL:
        others = np.clip(1 - predictions.probabilities, 1e-300, 1.0)
        return -(truth * np.log(chances) + (1 - truth) * np.log(others)).mean(axis=1)
    return -(truth * np.log(chances)).sum(axis=1)


def about_figures(run: Run, predictions: Predictions | None) -> str:
    """What the figures were measured on and of, and what their intervals mean."""
    record = run.record
    rounded = isinstance(run, RoundedRun)
    text = (
        f"Measured on the {record.examples[record.split]:,} {record.split} examples of "
        f"{record.spec.dataset}; "
        + (
            f"precision and recall of {visible_name(record.label_names[1])}"
            if record.average == "binary"
            else "precision and recall weighted by support"
        )
    )
    if predictions is not None:
        text += (
            ". The intervals are about the choice of these examples alone: texts from elsewhere "
            "may differ by more"
        )
    if rounded:
        text += (
            ". All of them are figures of the rounded weights; the last column has those that the "
            "run had before its weights were rounded"
        )
    if record.split == "validation" and record.chosen_on_validation:
        text += ". Settings were chosen on the same examples: the figures are too optimistic"
    return f"{text}."


def seeds(run: Run) -> list[Block]:
    """How much the figures differ from seed to seed, where there are runs that say it."""
    cache_dir = run.folder.parent.parent
    same = [
        other.record
        for other in store.load_all(cache_dir)
        if other.record.same_but_seed() == run.record.same_but_seed()
    ]
    if len(same) < 2:
        return []
    figures = {}
    for name in ("accuracy", "f1_macro", "ce"):
        values = [record.metrics.get(record.split, {}).get(name) for record in same]
        known = [value for value in values if value is not None]
        if len(known) == len(same):
            of = mean_std(known)
            figures[METRICS[name].in_words] = f"{decimals(of.mean, 4)} ± {of.std or 0.0:.4f}"
    words = ", ".join(f"{name} {value}" for name, value in figures.items())
    which = f"{len(same)} seeds, this one among them"
    if isinstance(run, RoundedRun):
        which += ", before weights were rounded"
    return [Paragraph(f"With {which} (mean ± standard deviation): {words}.")]


def details(run: Run, cache_dir: Path) -> list[Block]:
    """Figures by label, confusions and calibration, as in reports."""
    group, analysis = analysed([run], cache_dir)
    calibration = analysis.systems[0].calibration if analysis.systems else None
    if calibration is None:
        return [Paragraph("Its predictions are not there: figures by label are not known.")]
    part = GroupFindings(group.section, analysis, None)
    tables = [block for block in SECTIONS["confusion"](part, 1) if isinstance(block, Table)]
    counts = np.array(calibration.count)
    sure, right = (
        float((np.array(values) * counts).sum() / counts.sum())
        for values in (calibration.confidence, calibration.accuracy)
    )
    how = "too high" if sure > right else "too low"
    what = "decisions for or against a label" if run.record.task is MULTI_LABEL else "given labels"
    return [
        Heading(2, "By label"),
        *(replace(table, caption=CAPTIONS[table.kind]) for table in reversed(tables)),
        Heading(2, "How far probabilities can be trusted"),
        Paragraph(
            f"On average, {what} have a probability of {decimals(sure, 4)}. The share of them that "
            f"is right is {decimals(right, 4)}: probabilities are {how} on average. The expected "
            f"calibration error, in 15 bins, is {decimals(calibration.own_error, 4)}."
        ),
    ]


def analysed(runs: Sequence[Run], cache_dir: Path) -> tuple[Group, Analysis]:
    """The `own_group` of runs, and its analysis."""
    group = own_group(runs)
    return group, analyse(cache_dir, group)


def own_group(runs: Sequence[Run]) -> Group:
    """The group that runs of one cache form on their own data."""
    return next(group for group in grouped(runs) if group.systems[0].transfers is None)


def baselines(run: Run, cache_dir: Path) -> list[Block]:
    """How the run compares with the baselines of its cache."""
    others = [
        other
        for other in store.load_all(run.folder.parent.parent)
        if other.head.is_baseline
        and other.record.cache_key == run.record.cache_key
        and other.record.same_but_seed() != run.record.same_but_seed()
        and other.record.split == run.record.split
    ]
    heading = Heading(2, "Beside baselines")
    if not others:
        return [heading, Paragraph("No baseline was trained on the same data.")]
    group, analysis = analysed([run, *others], cache_dir)
    (own,) = [row.system for row, system in group.named if run.id in row.runs]
    lines = []
    for row in group.section.rows:
        pairs = [pair for pair in analysis.pairs if {pair.first, pair.second} == {own, row.system}]
        compared = ["–", "–", "–"]
        for pair in pairs:
            pair = pair if pair.first == own else pair.reversed()
            compared = [
                with_sign(100 * pair.headline.value, 1),
                wording.interval("accuracy", pair.headline),
                p_value(pair.corrected).removeprefix("p ").removeprefix("= "),
            ]
        name = f"{row.system} (this one)" if row.system == own else row.system
        figures = [figure_cell(row.figures[name]) for name in ("accuracy", "f1_macro", "ce")]
        lines.append(Line.of(name, *figures, *compared))
    columns = [
        "System", "Accuracy", "Macro F1", "CE",
        "This one ahead (points of accuracy)", "95% interval", "p (Holm)",
    ]  # fmt: skip
    return [heading, Table("Baselines on the same data", columns, lines, "systems")]


# What it was trained on, and its limits.


class OfCache(NamedTuple):
    """What a run's cache says of its data."""

    counts: list[int]  # training examples by label
    lengths: Array  # tokens of each training text
    unknown: texts.SplitCounts | None  # of the split that reports show


def of_cache(run: Run, cache_dir: Path) -> OfCache | None:
    """What is known of a run's data; None if its cache is not at hand."""
    record = run.record
    try:
        with Cache(find_cache(run, cache_dir)) as cache:
            train = cache.splits["train"]
            counts = record.task.label_counts(train.labels, len(record.label_names)).tolist()
            unknown = texts.read_unknown(cache.path).splits.get(record.split)
            return OfCache(counts, train.lengths, unknown)
    except SpaceliteError:
        return None


def data(run: Run, cache_dir: Path, known: OfCache | None) -> list[str]:
    """The data in sentences."""
    record, dataset = run.record, hub_dataset(run.record.spec)
    sizes = ", ".join(f"{count:,} {split}" for split, count in record.examples.items())
    where = f" ({dataset} on the hub)" if dataset not in (None, record.spec.dataset) else ""
    sentences = [f"Data set {record.spec.dataset}{where}; examples: {sizes}."]
    if known is None:
        return [
            *sentences,
            "Its cache was not at hand when this card was written: no more is known of the data.",
        ]
    counts = list(zip(map(visible_name, record.label_names), known.counts, strict=True))
    if len(counts) <= MOST_LABELS:
        shares = ", ".join(f"{name} {count:,}" for name, count in counts)
        sentences.append(f"Training examples by label: {shares}.")
    if few := [name for name, count in counts if count < FEWEST]:
        sentences.append(
            f"{len(few)} labels have fewer than {FEWEST} training examples: "
            f"{', '.join(few[:MOST_LABELS])}."
        )
    return [*sentences, *data_notes(cache_dir, own_group([run]))]


def limits(run: Run, known: OfCache | None) -> list[str]:
    """What the classifier cannot do, or what is not known of it, in sentences."""
    record, spec = run.record, run.record.spec
    sentences = []
    if spec.stride is None:
        many = ""
        if known is not None and spec.padding == "none":
            cut, count = int((known.lengths >= spec.cut_at).sum()), len(known.lengths)
            many = f": {cut:,} of {count:,} training texts are as long or longer"
        sentences.append(
            f"{'Pairs of texts' if spec.pairs else 'Texts'} are cut off after {spec.max_length} "
            f"tokens{many}."
        )
    else:
        sentences.append(
            f"Texts of more than {spec.max_length} tokens are run in windows that overlap: each "
            "token sees the text around it, and not all of it."
        )
    language = LANGUAGES.get(spec.backbone)
    sentences.append(
        f"Its backbone was trained on {language}: it knows little of other languages."
        if language
        else f"Which languages and scripts it knows depends on {spec.backbone}; it was measured on "
        "its own data alone."
    )
    if known is not None and (counts := known.unknown) is not None:
        sentences.append(
            f"{counts.unknown / max(counts.tokens, 1):.2%} of the tokens of {record.split} are "
            "unknown to the backbone; all unknown words look the same to it."
        )
    sentences.append(
        "It has learned from its data alone, errors of their labels included. On texts of another "
        "kind, time or source it may be worse: measure it there before you rely on it (spacelite "
        f"eval {run.id} --dataset ...)."
    )
    sentences.append("Whether it treats groups of people differently was not measured.")
    if record.head.reads_ids:
        sentences.append(
            "The head holds the token ids of n-grams of its training texts: who has it can tell "
            "which words and sequences of words occur in them."
        )
    return sentences


# How it was made.


def choices(run: Run) -> list[str]:
    """Its settings, and what chose them, in sentences."""
    record = run.record
    words = [*settings.words(record.head), *settings.words(record.training)]
    epochs = "fitted directly" if record.epochs is None else f"{record.epochs} epochs"
    seed = "" if record.seed is None else f", seed {record.seed}"
    sentences = [f"{', '.join([record.system, epochs, *words])}{seed}."]
    if record.chosen:
        names = ", ".join(name.replace("_", " ") for name in record.chosen)
        sentences.append(f"Chosen by the number of training examples: {names}.")
    for name, value in record.cross_validated.items():
        sentences.append(f"Cross-validation on train chose {name} = {value:g}.")
    if record.search is not None:
        figure = record.metrics.get("validation", {}).get(record.search.monitor)
        sentences.append(f"Settings: {record.search.words(figure)}.")
    if record.best_epoch is not None:
        sentences.append(f"Epoch {record.best_epoch} was chosen on validation.")
    if record.thresholds:
        metric = METRICS[record.training.threshold or "f1_macro"].in_words
        sentences.append(f"Decision thresholds were chosen on validation for {metric}.")
    if not record.chosen_on_validation:
        sentences.append("Nothing of it was chosen on validation.")
    others = {
        other.record.same_but_seed()
        for other in store.load_all(run.folder.parent.parent)
        if other.record.cache_key == record.cache_key and not other.head.is_baseline
    } - {record.same_but_seed()}
    if others:
        plural = "systems were" if len(others) > 1 else "system was"
        sentences.append(
            f"{len(others)} other {plural} trained on the same data: if this one was picked by its "
            f"figures on {record.split}, they are too optimistic."
        )
    sentences += start_note(record.system, [record])
    spec = record.spec
    sentences.append(
        f"Backbone {spec.backbone}, {spec.backbone_version}; hidden states stored as {spec.dtype}."
    )
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items() if number)
    sentences.append(f"Run {run.id} of {record.created}, with {versions}.")
    return sentences


def about_commands(record: RunRecord) -> str:
    """What the commands leave open."""
    if record.spec.is_imported:
        return "Its settings, as options of the command (CACHE is the cache of the import):"
    return (
        "Its settings, as options of the commands (CACHE is the cache that the first one writes). "
        "How the data were read is not recorded in full: options such as limit, columns, "
        "fractions and separators have to be the same as then. Local folders and files stand here "
        "by their names:"
    )


def embed_command(record: RunRecord) -> str:
    """The command that embeds data as those of a run, as far as its record says; "" if they were
    imported. A folder of data or of a backbone stands in it by its name."""
    spec = record.spec
    if spec.is_imported:
        return ""
    given: dict[str, Any] = {
        "dataset": spec.dataset,
        "backbone": spec.backbone,
        "revision": spec.revision,
        "layer": spec.layer,
        "max-length": spec.max_length,
        "dtype": spec.dtype,
        "padding": spec.padding,
        "prefix": spec.prefix,
        "windows": spec.stride is not None,
        "stride": spec.stride,
        "skip-first": spec.skip_first,
        "reduce": spec.reduce,
        "precision": spec.precision,
        "text-column": record.text_column if spec.pairs else None,
    }
    usual = {
        **{name.replace("_", "-"): value for name, value in vars(Encoding()).items()},
        "precision": "float32",
    }
    return command("embed", {
        name: value
        for name, value in given.items()
        if name in ("dataset", "backbone") or value not in (None, "", usual.get(name))
    })  # fmt: skip


def train_command(record: RunRecord) -> str:
    """The command that trains a head of the same settings, and so with the same id, on CACHE."""
    given: dict[str, Any] = {"cache": "CACHE", "head": record.head.kind}
    training: list[Any] = [record.training]
    for config in (record.head, *training):
        values = settings.effective(config)
        for field in fields(config):
            about = field.metadata
            value = values.get(field.name)
            if field.name == "seed" or value is None:
                continue
            if value != field.default or about["help_default"] is not None:
                if field.name == "sample_weight":
                    value = str(value).rpartition(" ")[0] or value
                given[(about["option"] or field.name).replace("_", "-")] = value
    if record.seed:
        given["seeds"] = f"{record.seed},"
    return command("train", {**given, "no-baselines": True})


def command(name: str, options: dict[str, Any]) -> str:
    """A command of spacelite with its options."""
    words = ["spacelite", name]
    for option, value in options.items():
        words.append(f"--{option}")
        if value is not True:
            shown = f"{value!r}" if isinstance(value, float) else str(value)
            words.append(shlex.quote(visible_name(shown)))
    return " ".join(words)
