"""The audit of labels: the command of the command line, with the same options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import files, heads
from spacelite.api.arguments import FILE, NAME, checked
from spacelite.api.embedding import CACHE_DIR, find_cache
from spacelite.api.results import CACHE, EmbeddedDataset
from spacelite.data.writers import csv_lines
from spacelite.document import Bullets
from spacelite.errors import SpaceliteError
from spacelite.progress import Progress, reporting
from spacelite.reports.render import fragment, plain

if TYPE_CHECKING:
    from spacelite.studies.audit import Audit, Finding


@dataclass(frozen=True, eq=False, repr=False)
class LabelAudit:
    """What an audit of labels found.

    Attributes:
        result: The findings.
    """

    result: Audit

    @property
    def findings(self) -> list[Finding]:
        """The examples whose label is probably wrong, most probably wrong first."""
        return self.result.findings

    @checked(path=FILE)
    def save(self, path: str | Path) -> None:
        """Write all findings to a csv file. Raises SpaceliteError if it cannot be written."""
        try:
            files.write_bytes(Path(path), csv_lines(self.result.csv_rows()).encode())
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror}") from error

    def as_json(self) -> dict[str, Any]:
        """The audit as `audit --json` prints it."""
        return self.result.as_json()

    def __str__(self) -> str:
        tables = [plain.table(self.result.findings_table())]
        if self.result.pairs:
            tables.append(plain.table(self.result.groups_table()))
        return "\n\n".join([*tables, "\n".join(self.result.sentences)])

    def __repr__(self) -> str:
        found = self.result
        return f"<audit: {len(found.findings):,} of {found.examples:,} labels are suspected>"

    def _repr_html_(self) -> str:
        tables = [self.result.findings_table()]
        if self.result.pairs:
            tables.append(self.result.groups_table())
        return fragment.render([*tables, Bullets(self.result.sentences)])


@checked(cache=CACHE, head=NAME)
def audit(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    head: str = "additive",
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    backbone: str | Path | None = None,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
) -> LabelAudit:
    """Find labels of the train split that are probably wrong: confident learning on probabilities
    of heads that did not see the example.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the newest complete cache.
        head: `additive` (means and n-grams of the tokens), `tfidf`, or `logreg` (on the mean).
        folds: Number of folds: each example is judged by a head that was fitted to the others.
        repeats: How often the examples are divided anew; probabilities are averaged.
        seed: Seed of the divisions.
        backbone: Folder of the backbone, if it was a local one that has moved.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The findings, with the words that decided, and texts that are nearly the same and have
        different labels.

    Raises:
        SpaceliteError: A text of the data may have several labels, or there are too few examples of
            a label for so many folds.
    """
    from spacelite.backbones.model import resolve_device
    from spacelite.studies import answers
    from spacelite.studies.audit import audit_labels

    configs = {
        "additive": heads.config("additive", blocks="mean+ngrams"),
        "tfidf": heads.config("tfidf", C="auto"),
        "logreg": heads.config("logreg", pooling="mean", C="auto"),
    }
    if head not in configs:
        raise SpaceliteError(f"head={head}: choose from {', '.join(configs)}", ["head"])
    if not isinstance(cache, EmbeddedDataset):
        cache = find_cache(cache, cache_dir or CACHE_DIR)
    local = str(backbone) if backbone is not None else cache.backbone
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        found = audit_labels(
            opened, configs[head], folds=folds, repeats=repeats, seed=seed, backbone=local,
            device=resolve_device(device), on_progress=on_progress,
        )  # fmt: skip
        answers.keep(cache.cache_dir, opened, "audit", found.as_json())
    return LabelAudit(found)
