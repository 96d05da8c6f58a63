"""spacelite explain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

import spacelite
from spacelite.document import decimals
from spacelite.errors import SpaceliteError
from spacelite.visible import visible_name

from . import console
from .options import CACHE_DIR, SECOND

if TYPE_CHECKING:
    from spacelite.inference.explanation import Explanation

MOST_WORDS = 10  # in the table of the words that contribute most


def explain(
    run: str,
    text: str | None = None,
    *,
    pair: str | None = None,
    example: str | None = None,
    label: str | None = None,
    html: Path | None = None,
    backbone: str | None = None,
    device: str = "auto",
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Show which words mattered for a prediction.

    The number beside a word is its share in the label's logit, less the mean of its shares in the
    logits of all labels, since only differences between logits matter. If a text can have several
    labels, it is the share in the label's own logit. --json has the shares in every single logit.
    Of a run that predicts numbers, it is what the word adds to the number.

    Options:
        text: The text to explain.
        pair TEXT: The second text, for a run that was trained on pairs of texts.
        example: In place of a text: an example of the run's cache, such as test:17.
        label: The label to explain. [default: the predicted one, or each of several]
        html: Also write a page: the text, the share of every word, and the tokens in the concept
            spaces of heads that have them.
    """
    arguments = locals()

    if html is not None and (html.is_dir() or not html.name):
        raise SpaceliteError(f"--html {html} is a folder: name a file")
    if pair is not None and text is None:
        raise SpaceliteError("--pair needs a text before it")
    loaded = spacelite.load_run(run, cache_dir)
    if text is not None and pair is None and loaded.record.spec.pairs:
        raise SpaceliteError(f"run {loaded.id} was trained on pairs of texts: {SECOND}")
    given = text if pair is None else (text, pair)
    explained = console.call(loaded.explain, arguments, text=given)
    if html is not None:
        explained.save(html)
        console.note(f"{html} written")
    if as_json:
        names = [explained.explanation.labels[label] for label in explained.shown]
        of_labels = {"label": names[0], "explained": names}
        if explained.explanation.number is not None:
            of_labels = {}
        console.print_json(
            {"run": explained.run.id, **of_labels, **explained.explanation.as_json()}
        )
    else:
        _print(explained.explanation, explained.shown, example)


def _print(result: Explanation, labels: Sequence[int], example: str | None) -> None:
    say = console.out().print
    if result.number is not None:
        say(Text.assemble("predicted ", (result.prediction, "bold")))
    else:
        chances = ", ".join(
            f"{visible_name(name)} {decimals(value, 3)}"
            for name, value in zip(result.labels, result.probabilities, strict=True)
        )
        given = visible_name(", ".join(result.given))
        say(Text.assemble((given or "no label", "bold"), f"   ({chances})"))
    if result.example is not None:
        labelled = visible_name(", ".join(result.example))
        say(Text(f"labelled {labelled or 'with nothing'}", style="dim"))
    if result.source is not None:
        say(Text(f"{example} is {result.source}", style="dim"), soft_wrap=True)
    say()
    for label in labels:
        _print_words(result, label)
    exact = f"bias and words add up to the {result.task.output} to within {result.exact}"
    legend = result.legend(labels[0] if len(labels) == 1 else None)
    for note in filter(None, (result.decided, result.unknown, legend, exact, result.recomputed)):
        say(Text(note, style="dim"))


def _print_words(result: Explanation, label: int) -> None:
    """Print the text with the words that matter for a label, and those that contribute most."""
    say = console.out().print
    say(_marked(result, label), soft_wrap=console.out().color_system is None)
    say()
    shares = result.shares[:, label].tolist()

    def written(value: float) -> str:
        return result.written(value).replace("−", "-")

    of_blocks = [result.block_shares(name)[:, label].tolist() for name in result.block_names]
    rows = zip(result.words, shares, *of_blocks, strict=True)
    words = sorted(rows, key=lambda row: -abs(row[1]))
    table = console.new_table("Word", f">{result.column(label)}")
    for name in result.block_names:
        table.add_column(f"from {name}", justify="right", style="dim")
    for word, share, *parts in words[:MOST_WORDS]:
        table.add_row(Text(word.name), *map(written, (share, *parts)))
    rest = [numbers for _, *numbers in words[MOST_WORDS:]]
    if rest:
        sums = map(written, map(sum, zip(*rest, strict=True)))
        table.add_row(Text(f"{len(rest)} more", style="dim"), *sums)
    table.add_row(Text("bias", style="dim"), written(result.bias_shown[label]))
    table.add_section()
    table.add_row(Text(result.task.output, style="bold"), written(result.logits_shown[label]))
    say(table)


def _marked(result: Explanation, label: int) -> Text:
    """The text, with `word(+0.12)` where a word matters: words for the label on green, against it
    on red; stronger words are brighter."""
    line = Text()
    for word in result.marked(label):
        if word.side:
            strength = round(60 + 140 * word.weight)
            colour = f"rgb(0,{strength},0)" if word.side == "for" else f"rgb({strength},0,0)"
            line.append(f"{word.text}({word.share(2)})", style=f"white on {colour}")
        else:
            line.append(word.text, style="dim")
        line.append(" ")
    line.rstrip()
    return line
