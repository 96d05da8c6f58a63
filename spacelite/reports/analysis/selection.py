"""Which runs a report is of: runs chosen by their cache and settings, and systems named for a
comparison."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spacelite.errors import SpaceliteError
from spacelite.reports.analysis.groups import Group, grouped
from spacelite.reports.analysis.sweeps import note, sweep_key
from spacelite.runs import Run, RunRecord
from spacelite.runs.names import matching
from spacelite.settings import OTHER_NAMES, shown

MOST_NAMES = 8  # that a message lists


def select(
    runs: Sequence[Run],
    *,
    cache: str | None = None,
    dataset: str | None = None,
    head: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
) -> list[Run]:
    """The runs that fit all conditions.

    Args:
        runs: Runs.
        cache: Name of a cache, or the beginning of it.
        dataset: Name of a data set.
        head: Kinds of heads. Default: all.
        where: Setting -> value, or several values, that the runs have. A head that lacks the
            setting, such as a baseline without learning rate, is kept.

    Raises:
        SpaceliteError: A condition fits no run, or there is no such setting.
    """
    chosen = list(runs)
    if cache is not None:
        fits = [run for run in chosen if run.record.cache.startswith(cache)]
        chosen = _some(fits, f"cache={cache}", (run.record.cache for run in chosen), ["cache"])
    if dataset is not None:
        fits = [run for run in chosen if run.record.spec.dataset == dataset]
        others = (run.record.spec.dataset for run in chosen)
        chosen = _some(fits, f"dataset={dataset}", others, ["dataset"])
    for kind in head:
        _some([run for run in chosen if run.head.kind == kind], f"head={kind}",
              (run.head.kind for run in chosen), ["head"])  # fmt: skip
    chosen = [run for run in chosen if not head or run.head.kind in head]
    for given, wanted in (where or {}).items():
        name = OTHER_NAMES.get(given, given)
        values = [own[name] for run in chosen if name in (own := run.record.settings)]
        if not values:
            names = ", ".join(dict.fromkeys(key for run in chosen for key in run.record.settings))
            raise SpaceliteError(
                f"where={given}: no run has this setting; choose one of {names}", ["where"]
            )
        one = isinstance(wanted, str) or not hasattr(wanted, "__iter__")
        several = [wanted] if one else list(wanted)
        if not any(_is_one_of(value, several) for value in values):
            said = ", ".join(map(shown, several))
            known = map(shown, sorted(values, key=_numbers_first))
            _some([], f"where={given}={said}", known, ["where"])
        chosen = [
            run
            for run in chosen
            if name not in run.record.settings or _is_one_of(run.record.settings[name], several)
        ]
    return chosen


def _is_one_of(value: Any, wanted: Sequence[Any]) -> bool:
    return any(_same(value, one) for one in wanted)


def _numbers_first(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _same(value: Any, wanted: Any) -> bool:
    """Whether a setting has the wanted value, which may be given as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) == float(wanted)
        except (TypeError, ValueError):
            return False
    return shown(value).casefold() == shown(wanted).casefold()


def _some(fits: list[Run], said: str, known: Iterable[str], names: list[str]) -> list[Run]:
    if not fits:
        raise SpaceliteError(
            f"{said}: there is no such run; choose {' or '.join(dict.fromkeys(known))}", names
        )
    return fits


def compared(runs: Sequence[Run], names: Sequence[str]) -> list[Group]:
    """The groups of systems that are named for a comparison.

    Args:
        runs: The runs to choose from.
        names: At least two systems: names as in the report's tables, or a run's name, id or part of
            its id, which stands for all seeds of its system. The name of a sweep means the setting
            that validation chose.

    Returns:
        The groups that hold at least two of the systems, with no others.

    Raises:
        SpaceliteError: A name fits no system, or no two systems are of the same data.
    """
    everything = [group for group in grouped(runs) if group.systems[0].transfers is None]
    wanted: dict[tuple[Any, ...], RunRecord] = {}
    for name in dict.fromkeys(names):
        for record in _systems(everything, runs, name):
            wanted[record.same_but_seed()] = record
    if len(wanted) < 2:
        raise SpaceliteError(
            f"compare={', '.join(names)}: this is one system; name at least two", ["compare"]
        )
    of = [run for run in runs if run.record.same_but_seed() in wanted]
    made = [group for group in grouped(of, list(wanted.values())) if len(group.systems) > 1]
    if not made:
        caches = ", ".join(dict.fromkeys(run.record.cache for run in of))
        raise SpaceliteError(
            f"compare={', '.join(names)}: these systems were trained on different caches "
            f"({caches}); only systems of the same test examples can be compared",
            ["compare"],
        )
    return [_with_searches(group, everything) for group in made]


def _with_searches(group: Group, everything: Sequence[Group]) -> Group:
    """Note under a group what else was tried in the sweeps that its systems come from."""
    notes = []
    for other in everything:
        for row, system in other.named:
            record = system.runs[0].record
            if row.tried > 1 and any(
                record.same_but_seed() == own.runs[0].record.same_but_seed()
                for own in group.systems
            ):
                sweep = [
                    each for each, own in other.named
                    if sweep_key(own.runs[0].record) == sweep_key(record)
                ]  # fmt: skip
                notes.append(note(row, sweep))
    return replace(group, section=replace(group.section, notes=[*group.section.notes, *notes]))


def _systems(groups: Sequence[Group], runs: Sequence[Run], name: str) -> list[RunRecord]:
    """The systems that a name stands for, one in each group at most."""
    key = name.casefold()
    rows = [(row, system) for group in groups for row, system in group.named]
    exact = [system for row, system in rows if row.name.casefold() == key]
    titled = [system for row, system in rows if row.chosen and row.title.casefold() == key]
    if systems := exact or titled:
        return [system.runs[0].record for system in systems]
    by_id = {run.id.casefold(): run for run in runs}
    named = {run_id: run.name.casefold() for run_id, run in by_id.items() if run.name}
    of = matching(list(by_id), named, key)
    if len(of) == 1:
        return [by_id[of[0]].record]
    known = list(dict.fromkeys(row.title for row, _ in rows))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:MOST_NAMES]
    problem = f"fits {len(of)} runs" if of else "no system has this name"
    raise SpaceliteError(
        f"compare={name}: {problem}; give a system's name ({'; '.join(near)}) or a run's id",
        ["compare"],
    )
