"""The hub client: which files of a backbone or data set repository are here, or can be fetched.

Loads nothing: it ends at a folder on disk. Only files without code in them are fetched (JSON,
safetensors, vocabularies), so nothing is ever unpickled.
"""

from __future__ import annotations

from pathlib import Path

from spacelite.errors import SpaceliteError, one_line

BACKBONE_FILES = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
]


def backbone_folder(name: str, revision: str | None) -> Path:
    """The local snapshot of backbone `name` at `revision` (a commit, branch or tag; None: main).

    The folder's name is the resolved commit. Raises SpaceliteError when the name or revision does
    not exist, or cannot be reached and is not in the local hub cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=BACKBONE_FILES))
    except LocalEntryNotFoundError as error:
        raise SpaceliteError(_unreachable("backbone", name)) from error
    except Exception as error:
        raise _refusal("backbone", name, revision, error) from error


def data_set_is_online(name: str, revision: str | None) -> bool:
    """Whether the hub answers for data set `name`; False where no network leads to it.

    Asked before `datasets` is, which retries for half a minute without a word. Raises
    SpaceliteError when the hub answers that the name or revision does not exist.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, revision=revision, timeout=10)
    except (HfHubHTTPError, HFValidationError) as error:
        raise _refusal("data set", name, revision, error) from error
    except Exception:  # the HTTP library's own connection errors, which differ by version
        return False
    return True


def cached_data_set_folder(name: str, revision: str | None) -> Path:
    """The snapshot of data set `name` in the local hub cache; SpaceliteError where it has none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except Exception as error:
        raise SpaceliteError(_unreachable("data set", name)) from error


def _unreachable(what: str, name: str) -> str:
    built_in = "backbone minilm" if what == "backbone" else "dataset demo"
    return (
        f"{what} {name!r} is not on this machine and the hub cannot be reached: connect, give "
        f"{built_in} or a local folder, or point HF_HOME (or HF_HUB_CACHE) at a local hub cache"
    )


def _refusal(what: str, name: str, revision: str | None, error: Exception) -> SpaceliteError:
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, RevisionNotFoundError):
        return SpaceliteError(f"{what} {name!r} has no revision {revision!r} on the hub")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return SpaceliteError(
            f"there is no {what} {name!r}: no such folder here and no such name on the hub "
            "(if it is private, log in with `hf auth login`)"
        )
    return SpaceliteError(f"the hub does not give {what} {name!r}: {one_line(error)}")
