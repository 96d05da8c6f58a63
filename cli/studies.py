"""spacelite cv, curve and audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from spacelite.visible import visible

from . import console, options
from .options import opt

if TYPE_CHECKING:
    from spacelite.studies.audit import Finding


class CvCommand(options.SettingsCommand):
    """`spacelite cv` with an option for each setting."""

    FUNCTION = "cross_validate"
    ORDER = (
        "folds repeats seed group_column sample_weight cache preset head inter intra latent "
        "learning_rate weight_decay pooling C blocks max_ngram ensemble ... seeds epochs "
        "batch_size data_seed schedule clip_norm class_weights no_baselines out device cache_dir "
        "as_json"
    )
    HELP: ClassVar[Mapping[str, str]] = {
        "pooling": "Pooling(s) of the baselines.  [default: the classification token]",
        "C": "Strength(s) of the L2 penalty of logreg and tfidf; auto: chosen by cross-validation "
        "on what a head sees.",
        "blocks": "What additive heads add up, joined by +.",
        "epochs": "Passes over the training split, or auto.",
        "batch_size": "Examples per batch, or auto.",
    }


def cv(
    context: typer.Context,
    folds: Annotated[int, opt("Number of folds, stratified by label.")] = 5,
    repeats: Annotated[int, opt("Number of repeated splits.")] = 1,
    seed: Annotated[int, opt("Seed of the divisions.")] = 0,
    group_column: Annotated[
        str | None,
        opt(
            "Column with the group of each training example, such as its author, which is in "
            "one fold as a whole: the data that were embedded are read again."
        ),
    ] = None,
    cache: options.CacheName = None,
    preset: options.Preset = None,
    head: Annotated[
        str, opt("Kind(s): space, linear, mlp, additive, logreg, tfidf.")
    ] = "space,linear",
    seeds: options.Seeds = "1",
    no_baselines: Annotated[
        bool,
        opt("Leave out tfidf and logreg on the mean on the same folds.", "--no-baselines"),
    ] = False,
    out: Annotated[
        Path | None,
        opt(
            "Write the predictions for each training example, by the heads that did not see "
            "it, to this csv file.",
            metavar="FILE",
        ),
    ] = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Cross-validate heads on the train split of a cache, all folds in one pass.

    Options with (s) take comma lists: every combination is cross-validated.
    """
    import spacelite
    from spacelite.data import writers
    from spacelite.training.plan import seed_list

    numbers = seed_list(seeds)
    if out is not None:
        writers.check_place(out)  # before the work
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        study = spacelite.cross_validate(
            chosen,
            folds=folds,
            repeats=repeats,
            seed=seed,
            groups=group_column,
            preset=preset,
            head=options.comma_list("--head", head, str),
            seeds=numbers,
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
            **context.obj,
        )
    if out is not None:
        study.save(out)
    if as_json:
        console.print_json(study.as_json())
        return
    console.show(study.table())
    for sentence in study.result.sentences:
        console.out().print(sentence)
    if out is not None:
        console.say(f"predictions written to {out}")


class CurveCommand(options.SettingsCommand):
    """`spacelite curve` with an option for each setting."""

    FUNCTION = "learning_curve"
    ORDER = (
        "sizes seeds metric cache preset head inter intra latent learning_rate weight_decay "
        "pooling C blocks max_ngram ... epochs batch_size data_seed schedule clip_norm "
        "no_baselines out plot device cache_dir as_json"
    )
    HELP: ClassVar[Mapping[str, str]] = {
        "learning_rate": "Learning rate(s).  [default: auto, 0.001]",
        "pooling": "Pooling(s) of the baselines.  [default: the classification token]",
        "C": "Strength(s) of the L2 penalty of logreg and tfidf; auto: chosen by cross-validation "
        "on a subset.",
        "blocks": "What additive heads add up, joined by +.",
        "epochs": "Passes over a subset.  [default: auto, by its size]",
        "batch_size": "Examples per batch.  [default: auto, by the size of a subset]",
    }


def curve(
    context: typer.Context,
    sizes: Annotated[
        str | None,
        opt(
            "Number(s) of training examples; all means all of them.  [default: 16, 64, 256, "
            "... and all]",
            metavar="<int|all>",
            show_default=False,
        ),
    ] = None,
    seeds: options.Seeds = "5",
    metric: Annotated[
        str,
        opt("What is shown and extrapolated: accuracy, f1_macro, precision, recall or auroc."),
    ] = "accuracy",
    cache: options.CacheName = None,
    preset: Annotated[str | None, opt("Settings that are recommended together: best.")] = None,
    head: Annotated[
        str | None,
        opt(
            "Kind(s): space, linear, mlp, additive, logreg, tfidf.  [default: additive]",
            show_default=False,
        ),
    ] = None,
    no_baselines: Annotated[
        bool,
        opt("Leave out tfidf and logreg on the mean on the same subsets.", "--no-baselines"),
    ] = False,
    out: Annotated[
        Path | None,
        opt("Write the figures of every system, size and seed to this csv file.", metavar="FILE"),
    ] = None,
    plot: Annotated[
        Path | None,
        opt("Draw the curve into this .svg, .png or .html file.", metavar="FILE"),
    ] = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Measure heads trained on fewer examples, and what more labels would be worth.

    Heads are trained on stratified subsets of the train split and evaluated on validation.
    """
    import spacelite
    from spacelite.data import writers
    from spacelite.reports.render import forms, plots
    from spacelite.training.plan import seed_list

    for path in (out, plot):
        if path is not None:
            writers.check_place(path)  # before the work
    if plot is not None:
        forms.check_drawing(plot)
    wanted = None if sizes is None else options.comma_list("--sizes", sizes, _size)
    numbers = seed_list(seeds)
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        study = spacelite.learning_curve(
            chosen,
            sizes=wanted,
            seeds=numbers,
            metric=metric,
            preset=preset,
            head=None if head is None else options.comma_list("--head", head, str),
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
            **context.obj,
        )
    if out is not None:
        study.save(out)
    if plot is not None:
        study.save_plot(plot)
    if as_json:
        console.print_json(study.as_json())
        return
    console.show(study.table())
    screen = console.out()
    width = min(plots.DRAWN_WIDTH, screen.width)
    drawn = plots.in_characters(study.chart(), width=width, plain=screen.options.ascii_only)
    screen.print(drawn, soft_wrap=True)
    screen.print()
    for sentence in study.sentences:
        screen.print(sentence)
    for path in (out, plot):
        if path is not None:
            screen.print(f"written to {path}", soft_wrap=True)


def _size(text: str) -> int | str:
    return text if text == "all" else int(text)


def audit(
    cache: options.CacheName = None,
    head: Annotated[
        str, opt("additive (means and n-grams), tfidf, or logreg (on the mean).")
    ] = "additive",
    folds: Annotated[
        int,
        opt("Number of folds: a label is judged by a head fitted to the others."),
    ] = 5,
    repeats: Annotated[int, opt("Number of repeated splits.")] = 1,
    seed: Annotated[int, opt("Seed of the divisions.")] = 0,
    top: Annotated[int, opt("Print at most this many.")] = 20,
    out: Annotated[
        Path | None,
        opt("Write all findings to this csv file.", metavar="FILE"),
    ] = None,
    backbone: Annotated[
        str | None,
        opt("The folder of the backbone, if that was a local folder."),
    ] = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Find labels of the train split that are probably wrong."""
    import spacelite
    from spacelite.data import writers

    if out is not None:
        writers.check_place(out)  # before the work
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        study = spacelite.audit(
            chosen, head=head, folds=folds, repeats=repeats, seed=seed, backbone=backbone,
            device=device, cache_dir=cache_dir, progress=on_progress,
        )  # fmt: skip
    if out is not None:
        study.save(out)
    if as_json:
        console.print_json(study.as_json())
        return
    for number, finding in enumerate(study.findings[:top], 1):
        _print_finding(number, finding)
    if study.result.pairs:
        console.show(study.result.groups_table(), ruled=False)
    for sentence in study.result.sentences:
        console.out().print(sentence)
    if out is not None:
        console.say(f"all written to {out}")


def _print_finding(number: int, finding: Finding) -> None:
    """Print a finding: what is suspected and why, and the beginning of the text below it."""
    from rich.padding import Padding
    from rich.text import Text

    words = f"; words: {', '.join(finding.words)}" if finding.words else ""
    title = Text(f"{number}. ")
    title.append(visible(finding.suggested), style="bold")
    title.append(f" ({finding.probability:.3f}) in place of {visible(finding.label)}")
    title.append(f"; {visible(finding.where)}{visible(words)}", style="dim")
    console.out().print(title)
    width = console.out().width - 3
    text = console.two_lines(Text(visible(finding.text)), width)
    console.out().print(Padding(text, (0, 0, 0, 3)))
