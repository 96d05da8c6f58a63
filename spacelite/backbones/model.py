"""Texts -> token ids -> frozen forward pass -> hidden states.

The only importer of `transformers`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.files import Checkpoint
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

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


def tokenize(
    files: Checkpoint,
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


def _load_tokenizer(files: Checkpoint) -> Any:
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

    def __init__(self, files: Checkpoint, *, layer: int, device: str) -> None:
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


def _load_model(files: Checkpoint, device: str) -> tuple[Any, bool]:
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
