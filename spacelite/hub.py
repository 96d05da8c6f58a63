"""The Hugging Face hub: a backbone's or data set's name -> a folder on disk; files -> a repository
of models, and back.

Nothing is loaded here. Only files that cannot contain code are fetched (JSON, safetensors,
vocabularies, arrays), so nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

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


class Repository(NamedTuple):
    """A repository of models, as it is now: its commit, and the bytes of its files by name."""

    commit: str
    sizes: dict[str, int]


T = TypeVar("T")


def repository(name: str, revision: str | None = None) -> Repository:
    """The files of a repository of models, without their contents. Raises SpaceliteError if there
    is none, or the hub cannot be reached."""
    from huggingface_hub import HfApi

    def look() -> Repository:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=10)
        sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
        return Repository(str(info.sha), sizes)

    return _asked(look, name, revision)


def download(name: str, commit: str, file: str, folder: Path) -> Path:
    """Fetch a file of a repository of models into a folder. Raises SpaceliteError."""
    from huggingface_hub import hf_hub_download

    return Path(
        _asked(lambda: hf_hub_download(name, file, revision=commit, local_dir=folder), name, commit)
    )


def upload(name: str, contents: Mapping[str, Path], *, private: bool, message: str) -> str:
    """Add files, by their names in it, to a repository of models, which is created if there is
    none, in one commit; return its address. Raises SpaceliteError if there is no token, it may not
    write there, or the hub cannot be reached."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise SpaceliteError(
            "the hub needs to know who you are: log in with `hf auth login`, or set HF_TOKEN to a "
            "token that may write"
        )

    def send() -> str:
        hub = HfApi()
        address = str(hub.create_repo(name, private=private, exist_ok=True))
        if private and not hub.model_info(name).private:
            raise SpaceliteError(
                f"private=True: the repository {name} is there already, and public: make it "
                "private on the hub, or choose another name",
                ["private"],
            )
        added = [CommitOperationAdd(file, path) for file, path in contents.items()]
        hub.create_commit(name, added, commit_message=message)
        return address

    return _asked(send, name, None, writing=True)


def local_backbone(name: str, revision: str | None) -> Path | None:
    """The folder of a backbone in the local hub cache; None if it is not there. The hub is not
    asked."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=BACKBONE_FILES, local_files_only=True
            )
        )
    except Exception:  # the client's own, of names, caches and files
        return None


def _asked(ask: Callable[[], T], name: str, revision: str | None, *, writing: bool = False) -> T:
    """What the hub answers about a repository of models, or SpaceliteError."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return ask()
    except SpaceliteError:
        raise
    except HFValidationError as error:
        raise SpaceliteError(
            f"{name!r} cannot be the name of a repository on the hub ({one_line(error, 100)}): "
            "give OWNER/NAME"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if writing and status in (401, 403, 404):
            raise SpaceliteError(
                f"the hub does not let you write to {name} ({one_line(error, 120)}): log in with "
                "`hf auth login`, with a token that may write there"
            ) from error
        raise _refusal("model", name, revision, error) from error
    except OfflineModeIsEnabled as error:
        raise SpaceliteError(
            "the hub is not asked while HF_HUB_OFFLINE is set: unset it, and run the command again"
        ) from error
    except Exception as error:  # the HTTP library's own connection errors, which differ by version
        raise SpaceliteError(
            f"the hub ({constants.ENDPOINT}) cannot be reached or broke off "
            f"({one_line(error, 120)}): check the connection (and HF_ENDPOINT), and run the "
            "command again"
        ) from error


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
