"""spacelite cv, curve, audit and sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

import spacelite
from spacelite.data import writers
from spacelite.document import decimals
from spacelite.visible import visible, visible_name

from . import console
from .options import CACHE_DIR, comma_list

if TYPE_CHECKING:
    from spacelite.studies.audit import Finding


def cross_validate(
    context: typer.Context,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: str | None = None,
    cache: str | None = None,
    preset: str | None = None,
    head: str = "space,linear",
    seeds: str = "1",
    no_baselines: bool = False,
    out: Path | None = None,
    device: str = "auto",
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Cross-validate heads on the train split of a cache, all folds in one pass.

    Options with (s) take comma lists: every combination is cross-validated.

    Options:
        folds: Number of folds, stratified by label.
        groups: Column with the group of each training example, such as its author. A group is
            never split between folds. The embedded data are read again.
        no_baselines: Leave out the baselines on the same folds: tfidf, and logreg on the mean.
        out FILE: Write the predictions for each training example, by the heads that did not see
            it, to this csv file.
    """
    arguments = locals()
    arguments["head"] = comma_list("--head", head, str)
    others = {"baselines": not no_baselines, **context.obj}
    _run(spacelite.cross_validate, arguments, **others)


def learning_curve(
    context: typer.Context,
    *,
    sizes: str | None = None,
    seeds: str = "5",
    metric: str | None = None,
    cache: str | None = None,
    preset: str | None = None,
    head: str | None = None,
    no_baselines: bool = False,
    out: Path | None = None,
    plot: Path | None = None,
    device: str = "auto",
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Measure heads trained on fewer examples, and what more labels would be worth.

    Heads are trained on stratified subsets of the train split and evaluated on validation.

    Options:
        sizes <int|all>: Number(s) of training examples; all means all of them. [default: 16, 64,
            256, ... and all]
        metric: The metric to show and extrapolate: accuracy, f1_macro, precision, recall or auroc;
            of numbers rmse, mae, r2, pearson or spearman. [default: accuracy, or rmse]
        preset: Recommended settings: best.
        head: Kind(s): space, linear, mlp, additive, logreg, tfidf. [default: additive]
        learning_rate: Learning rate(s). [default: auto, 0.001]
        epochs: Passes over a subset. [default: auto, by its size]
        batch_size: Examples per batch. [default: auto, by the size of a subset]
        no_baselines: Leave out the baselines on the same subsets: tfidf, and logreg on the mean.
        out FILE: Write the figures of every system, size and seed to this csv file.
        plot FILE: Draw the curve into this .svg, .png or .html file.
    """
    arguments = locals()
    from spacelite.reports.render import forms

    if plot is not None:
        writers.check_place(plot)  # before the work
        forms.check_drawing(plot)
    if sizes is not None:
        arguments["sizes"] = comma_list("--sizes", sizes, _size)
    if head is not None:
        arguments["head"] = comma_list("--head", head, str)
    others = {"baselines": not no_baselines, **context.obj}
    _run(spacelite.learning_curve, arguments, **others)


def _size(text: str) -> int | str:
    return text if text == "all" else int(text)


def audit(
    *,
    cache: str | None = None,
    head: str = "additive",
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    top: int = 20,
    out: Path | None = None,
    backbone: str | None = None,
    device: str = "auto",
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Find labels of the train split that are probably wrong.

    Options:
        head: additive (means and n-grams), tfidf, or logreg (on the mean).
        folds: Number of folds: each label is judged by a head that was fitted to the other folds.
        top: Print at most this many findings.
        out FILE: Write all findings to this csv file.
        backbone: The folder of the backbone, if that was a local folder.
    """
    _run(spacelite.audit, locals(), show=partial(_show_findings, top=top))


def sweep(
    over: str = "layers,pooling",
    *,
    metric: str | None = None,
    seed: int = 0,
    cache: str | None = None,
    out: Path | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Choose the layer and the pooling that a linear probe should read.

    Probes are compared on validation; test is read once, after the choice.

    Options:
        over: What probes differ in: layers (the mean of each layer), pooling (first, last, mean and
            max of the cached layer), or both with a comma between them.
        metric: The metric to compare and show: accuracy, f1_macro, precision, recall or auroc;
            of numbers rmse, mae, r2, pearson or spearman. [default: accuracy, or rmse]
        seed: Seed of the random labels of the control task.
        out FILE: Write the figures of every probe to this csv file.
    """
    arguments = locals()
    arguments["over"] = comma_list("over", over, str)
    _run(spacelite.sweep, arguments)


def _show(study: Any) -> None:
    """Print a study's tables and its chart, in characters."""
    from spacelite.reports.render import plots

    tables, chart, screen = study.tables(), study.chart(), console.out()
    for table in tables:
        if len(tables) > 1:
            console.say(table.caption, style="dim")
        console.show(table)
    if chart is None:
        return
    width = min(plots.DRAWN_WIDTH, screen.width)
    drawn = plots.in_characters(chart, width=width, plain=screen.options.ascii_only)
    screen.print(drawn, soft_wrap=True)
    screen.print()


def _run(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    show: Callable[[Any], None] = _show,
    **others: Any,
) -> None:
    """Make a study with a command's arguments, and save and print it as these ask for."""
    from spacelite.api.studies import CSV

    out, plot = arguments["out"], arguments.get("plot")
    if out is not None:
        writers.check(out, suffixes=CSV)  # before the work
    study = console.call(function, arguments, **others)
    if out is not None:
        study.save(out)
    if plot is not None:
        study.save_plot(plot)
    if arguments["as_json"]:
        console.print_json(study.as_json())
        return
    show(study)
    console.out().print("\n".join(study.sentences))
    for path in filter(None, (out, plot)):
        console.say(f"written to {path}")


def _show_findings(study: spacelite.LabelAudit, top: int) -> None:
    """Print the first findings of an audit, and what is nearly the same."""
    for number, finding in enumerate(study.findings[:top], 1):
        _print_finding(number, finding)
    if study.result.pairs:
        console.show(study.result.groups_table(), ruled=False)


def _print_finding(number: int, finding: Finding) -> None:
    """Print a finding: what is suspected and why, and the beginning of the text below it."""
    from rich.padding import Padding

    words = f"; words: {', '.join(finding.words)}" if finding.words else ""
    title = Text(f"{number}. ")
    title.append(visible_name(finding.suggested), style="bold")
    title.append(f" ({decimals(finding.probability, 3)}) in place of {visible_name(finding.label)}")
    title.append(f"; {visible_name(finding.where + words)}", style="dim")
    console.out().print(title)
    width = console.out().width - 3
    text = console.two_lines(Text(visible(finding.text)), width)
    console.out().print(Padding(text, (0, 0, 0, 3)))
