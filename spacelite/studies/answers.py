"""The last result of each study of a cache, on disk, for reports.

A JSON file in `questions`, inside the folder of caches: `<cache>--<kind>.json`. It holds figures,
no parameters: the heads that were trained for it are not saved.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.cache.store import Cache
from spacelite.document import Block
from spacelite.errors import SpaceliteError, one_line
from spacelite.runs.record import read_fields
from spacelite.studies.audit import Audit
from spacelite.studies.cross_validation import CrossValidation
from spacelite.studies.learning_curve import Curve
from spacelite.studies.probing import Sweep

log = logging.getLogger(__name__)

FOLDER = "questions"
FORMAT = 1
# By the command that they are the answer of, in the order of a report.
STUDIES: dict[str, type[CrossValidation] | type[Curve] | type[Audit] | type[Sweep]] = {
    "cv": CrossValidation, "curve": Curve, "audit": Audit, "sweep": Sweep,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The result of a study: the command, when it was run (UTC), the result as JSON, and the cache
    that it is about."""

    kind: str
    created: str
    content: dict[str, Any]
    cache: str


def answer_path(cache_dir: Path, cache: str, kind: str) -> Path:
    """The file of the last answer of a kind about a cache."""
    return cache_dir / FOLDER / f"{cache}--{kind}.json"


def keep(cache_dir: Path, cache: Cache, kind: str, content: Mapping[str, Any]) -> None:
    """Save an answer in place of the last one of its kind. If it cannot be written, that is logged:
    the caller has the answer."""
    path = answer_path(cache_dir, cache.name, kind)
    document = {
        "format": FORMAT,
        "kind": kind,
        "cache": cache.name,
        "cache_key": cache.key,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "content": files.finite(dict(content)),
    }
    try:
        files.make_folder(path.parent)
        with files.writing(path):
            files.write_json(path, document)
    except SpaceliteError as error:
        log.warning("reports will not show this: %s", error)


def of_cache(cache_dir: Path, cache: str, cache_key: str) -> list[Answer]:
    """The answers about a cache, in the order of their kinds. What cannot be read is left out with
    a warning."""
    answers = []
    for path in sorted((cache_dir / FOLDER).glob(f"{glob.escape(cache)}--*.json")):
        try:
            document = files.read_json(path)
            if document["cache_key"] != cache_key or document["cache"] != cache:
                continue
            if document["format"] > FORMAT:
                raise ValueError("a later version of spacelite wrote it")
            answers.append(Answer(**read_fields(Answer, document)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is left out: %s", path, one_line(error, 80))
    return answers


def report_blocks(answers: Sequence[Answer], number: int) -> list[Block]:
    """The blocks of all answers in part `number` of a report, each under its own heading. What
    cannot be read is left out with a warning, and what a later version may have answered without
    one."""
    blocks: list[Block] = []
    several = len({answer.cache for answer in answers}) > 1
    for kind, study in STUDIES.items():
        of_kind = [answer for answer in answers if answer.kind == kind]
        for at, answer in enumerate(of_kind, 1):
            about = f" on cache {answer.cache}" if several else ""
            origin = f"By spacelite {kind}{about}, last run on {answer.created[:10]}."
            name = f"{number}-{at}" if at > 1 else str(number)
            try:
                blocks += study.from_json(answer.content).report_blocks(origin, name)
            except Exception as error:  # figures that are no study's fail anywhere
                log.warning("the last %s is left out: %s", kind, one_line(error, 80))
    return blocks
