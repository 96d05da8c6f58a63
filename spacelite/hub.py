"""The Hugging Face hub: a backbone's or data set's name -> a folder on disk.

Nothing is loaded here. Only files that cannot contain code are fetched (JSON, safetensors,
vocabularies), so nothing is ever unpickled.
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
    """The local copy of a backbone, named after its commit, fetched if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=BACKBONE_FILES))
    except LocalEntryNotFoundError as error:
        raise _unreachable("model", name, "backbone=minilm") from error
    except Exception as error:
        raise _refusal("backbone", name, revision, error) from error


def data_set_is_online(name: str, revision: str | None) -> bool:
    """Whether a data set can be loaded from the hub; False if the hub cannot be reached.

    Called before `datasets`, which would silently retry for half a minute.
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
    """The copy of a data set in the local hub cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except Exception as error:
        raise _unreachable("data set", name, "dataset=demo") from error


def _unreachable(what: str, name: str, built_in: str) -> SpaceliteError:
    return SpaceliteError(
        f"{what} {name!r} is not on this machine and the hub cannot be reached: connect to the "
        f"internet, use {built_in} or a local folder, or set HF_HOME (or HF_HUB_CACHE) to a local "
        "hub cache",
        ["backbone", "dataset"],
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
    return SpaceliteError(f"the hub did not provide {what} {name!r}: {one_line(error)}")
