"""The learning curve: the command of the command line, with the same options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from spacelite import files
from spacelite.api.arguments import FILE, NAME, NAMES, checked
from spacelite.api.embedding import CACHE_DIR, find_cache
from spacelite.api.results import CACHE, EmbeddedDataset
from spacelite.data.writers import csv_lines
from spacelite.document import Bullets
from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import METRICS
from spacelite.progress import Progress, reporting
from spacelite.reports.render import characters, forms, fragment, plain
from spacelite.training import plan
from spacelite.training.config import TrainingConfig

if TYPE_CHECKING:
    from spacelite.document import Chart, Table
    from spacelite.studies.learning_curve import Curve

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# What stands for a setting that neither the caller nor a preset gives.
DEFAULTS: dict[str, Any] = {
    "head": "additive",
    "learning_rate": "auto",
    "epochs": "auto",
    "batch_size": "auto",
}


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurve:
    """How good heads are by number of training examples, and what more labels would be worth.

    Attributes:
        result: The figures, and what is extrapolated from them.
        cache: The cache.
    """

    result: Curve
    cache: EmbeddedDataset

    @property
    def sizes(self) -> list[int]:
        """The numbers of training examples, in ascending order."""
        return self.result.sizes

    def figures(self, metric: str = "accuracy") -> dict[str, Array]:
        """A metric of each head on validation, (sizes, seeds), the best head first."""
        if metric not in METRICS:
            raise SpaceliteError(f"metric={metric}: choose from {', '.join(METRICS)}", ["metric"])
        return {name: own.figures[metric] for name, own in self.result.named.items()}

    @property
    def sentences(self) -> list[str]:
        """What was measured, and what more labels would be worth."""
        return self.result.sentences

    def table(self) -> Table:
        """The table as it is printed."""
        return self.result.table()

    def chart(self) -> Chart:
        """What is drawn."""
        return self.result.chart()

    @checked(path=FILE)
    def save(self, path: str | Path) -> None:
        """Write all figures to a csv file, a row for each system, size and seed. Raises
        SpaceliteError if it cannot be written."""
        lines = csv_lines(self.result.csv_rows())
        try:
            files.write_bytes(Path(path), lines.encode())
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror}") from error

    @checked(path=FILE)
    def save_plot(self, path: str | Path) -> None:
        """Draw the curve into an .svg, .png or .html file. Raises SpaceliteError if it cannot be
        written."""
        forms.save_drawing(self.result, Path(path))

    def as_json(self) -> dict[str, Any]:
        """The figures as `curve --json` prints them."""
        return {
            "cache": self.cache.name, **self.result.as_json(), "sentences": self.sentences,
        }  # fmt: skip

    def __str__(self) -> str:
        drawn = characters.draw(self.chart())
        return "\n\n".join([plain.table(self.table()), drawn, "\n".join(self.sentences)])

    def __repr__(self) -> str:
        found = self.result
        sizes = f"{found.sizes[0]:,} to {found.sizes[-1]:,}"
        return f"<learning curve of {len(found.systems)} systems, {sizes} examples>"

    def _repr_html_(self) -> str:
        from spacelite.reports.render import plots

        drawn = plots.learning_curve(self.chart(), "svg").decode()
        shown = fragment.render([self.table(), Bullets(self.sentences)])
        return f"{drawn[drawn.index('<svg') :]}{shown}"


@checked(cache=CACHE, head=NAMES, preset=NAME, metric=NAME)
def learning_curve(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    sizes: int | str | Sequence[int | str] | None = None,
    seeds: int | Sequence[int] = 5,
    metric: str = "accuracy",
    preset: str | None = None,
    head: str | Sequence[str] | None = None,
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    latent: int | Sequence[int] | None = None,
    learning_rate: float | str | Sequence[float | str] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    pooling: str | Sequence[str] | None = None,
    C: float | str | Sequence[float | str] = "auto",  # noqa: N803 - as in scikit-learn
    blocks: str | Sequence[str] | None = None,
    max_ngram: int | Sequence[int] | None = None,
    epochs: int | str | None = None,
    batch_size: int | str | None = None,
    data_seed: int = 0,
    schedule: str | None = None,
    clip_norm: float | None = None,
    baselines: bool = True,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> LearningCurve:
    """Train heads on subsets of the train split and evaluate them on validation: how good they are
    by number of training examples, and what twice as many would be worth.

    Subsets are stratified by label; those of a seed are each a part of the next. Figures are
    extrapolated by the power law error(n) = a + b n^-c (Cortes et al. 1993), whose 95% interval is
    that of a parametric bootstrap. No run is saved; test is not read.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the newest complete cache.
        sizes: Numbers of training examples; "all" means all of them. Default: 16, 64, 256, ... and
            all.
        seeds: Number S of seeds, which are 0 to S-1; or the seeds themselves. Each draws subsets,
            and is the seed of the heads that are trained on them.
        metric: The metric that is shown and extrapolated, such as `f1_macro`.
        preset: Settings that are recommended together, as in `train`.
        head: Kind(s) of heads, as in `train`. Default: `additive`.
        inter: Weight(s) of the inter-space loss.
        intra: Weight(s) of the intra-space loss.
        latent: Number(s) of dimensions of a concept space. Default: 3.
        learning_rate: Learning rate(s) of Adam. Default: "auto", 0.001.
        weight_decay: Weight decay(s), Adam's L2 penalty. Default: 0.01.
        pooling: Pooling(s) of the baselines. Default: the classification token.
        C: Strength(s) of the L2 penalty of logreg and tfidf; "auto" chooses it by cross-validation
            on the subset.
        blocks: What additive heads add up, joined by +. Default: `layers+ngrams`; `mean+ngrams` if
            the cache has no layer means.
        max_ngram: Tokens of the longest n-grams of the block `ngrams`, 2 or 3. Default: 2.
        epochs: Number of passes over a subset. Default: "auto", chosen for each size.
        batch_size: Examples per update. Default: "auto", chosen for each size.
        data_seed: Seed of the order of the examples.
        schedule: Schedule of the learning rate, `constant` (the default) or `cosine`.
        clip_norm: Maximum norm of a head's gradient; None for no clipping.
        baselines: Whether `tfidf` and `logreg` on the mean are fitted to the same subsets.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).
        settings: Settings of other kinds of heads, by name.

    Returns:
        The figures, which print themselves as a table, a drawing, and in sentences.

    Raises:
        SpaceliteError: The cache or the settings cannot be used, a size is larger than the train
            split or smaller than the number of labels, or memory is too small.
    """
    arguments = dict(locals())
    from spacelite.backbones.model import resolve_device
    from spacelite.studies import answers
    from spacelite.studies.learning_curve import learning_curve as measured
    from spacelite.studies.learning_curve import require_metric, sizes_of
    from spacelite.training.plan import listed, seed_list

    asked = {**DEFAULTS, **plan.requested(learning_curve, arguments), "seeds": [0]}
    require_metric(metric)
    numbers = seed_list(seeds)
    if not isinstance(cache, EmbeddedDataset):
        cache = find_cache(cache, cache_dir or CACHE_DIR)
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        without_layers = opened.layers is None or not opened.layers.complete
        if blocks is None and "additive" in asked["head"] and without_layers:
            asked["blocks"] = _without_layers(asked.get("blocks", "layers+ngrams"))
        wanted = sizes_of(None if sizes is None else listed("sizes", sizes), opened)

        def training(size: int) -> TrainingConfig:
            return plan.plan(asked, opened, examples=size, arguments=arguments).training

        configs = plan.plan(asked, opened, arguments=arguments).configs
        if baselines:
            configs += [config for config in plan.BASELINES if config not in configs]
        result = measured(
            opened, configs, training, sizes=wanted, seeds=numbers, metric=metric,
            device=resolve_device(device), on_progress=on_progress,
        )  # fmt: skip
        answers.keep(cache.cache_dir, opened, "curve", result.as_json())
    return LearningCurve(result, cache)


def _without_layers(blocks: str) -> str:
    """Blocks that do not read the means of all layers, of a cache that has none; it is logged."""
    instead = blocks.replace("layers", "mean")
    hint = SpaceliteError(
        f"additive reads {instead.replace('+', ' and ')}: the cache has no layer means; embed "
        "again with layers=True to add them",
        ["layers"],
    )
    log.info("%s", hint)
    return instead
