"""The cache that a run was trained on: where it is now."""

from __future__ import annotations

from pathlib import Path

from spacelite import files
from spacelite.cache.spec import embeddings_folder
from spacelite.errors import SpaceliteError
from spacelite.runs.store import Run


def find_cache(run: Run, cache_dir: Path) -> Path:
    """The file of the cache that a run was trained on. It is looked for beside the run, in
    `cache_dir`, and where it was when the run was trained.

    Raises:
        SpaceliteError: There is no such file, it is damaged, or it holds another cache.
    """
    from spacelite.cache.store import Cache

    record, name = run.record, f"{run.record.cache}.h5"
    here = embeddings_folder(run.folder.parent.parent) / name
    places = [here, embeddings_folder(cache_dir) / name]
    places += [run.folder / each for each in record.cache_files]
    problem = SpaceliteError(
        f"the cache of run {run.id}, {record.cache}, is neither beside the run nor in {cache_dir}: "
        "embed its data set again, or name the folder that holds it with cache_dir",
        ["cache_dir"],
    )
    for path in dict.fromkeys(files.absolute(place) for place in places):
        if path.is_file():
            try:
                with Cache(path) as cache:
                    if cache.key == record.cache_key:
                        return path
                problem = SpaceliteError(
                    f"cache {path} is another one than run {run.id} was trained on: embed the data "
                    "set of the run again"
                )
            except SpaceliteError as error:
                problem = error
    raise problem
