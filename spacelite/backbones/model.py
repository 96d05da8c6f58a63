"""Token ids -> hidden states: the frozen model."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from spacelite.backbones.files import BackboneFiles, loading_problem
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


def resolve_device(device: str) -> str:
    """Resolve `auto`, and check that a device works.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Returns:
        The device; for `auto`, `cuda` if there is a GPU, else `cpu`.

    Raises:
        SpaceliteError: The device does not work on this machine.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpaceliteError(
            f"device={device} does not work here: {one_line(error)}", ["device"]
        ) from error
    return device if kind != "cpu" else "cpu"


def forward_precision(device: str) -> str:
    """The number type of the forward pass: bfloat16 or float16 on a GPU, float32 on a CPU."""
    import torch

    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def check_layer(layer: int, layers: int, backbone: str) -> None:
    """Raise SpaceliteError if a backbone with so many layers, the embedding layer included, has no
    such layer."""
    if not -layers <= layer < layers:
        raise SpaceliteError(
            f"layer={layer}: {backbone} has hidden states {-layers} to {layers - 1}", ["layer"]
        )


class HiddenStates(NamedTuple):
    """What the model returns for B texts of n tokens each, float32 on the backbone's device.

    Attributes:
        hidden: Hidden states, (B, n, d).
        pooled: The pooler's outputs, (B, d); None without a pooler.
        layers: The hidden states of the embedding layer and of all others, (B, n, d) each, in the
            number type of the forward pass; None unless they were asked for.
        others: The hidden states of the backbone's `others`, (B, n, d) each.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None
    layers: tuple[torch.Tensor, ...] | None
    others: tuple[torch.Tensor, ...] = ()


class Backbone:
    """A frozen transformer, loaded and ready to run.

    Args:
        files: The backbone's files.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        device: Device of the model.
        all_layers: Whether the hidden states of all layers are kept as well.
        others: Further layers whose hidden states are given separately.

    Attributes:
        name: Name of the backbone.
        width: d, the hidden width.
        layers: Number of layers, the embedding layer included; 0 if they differ in width.
        has_pooler: Whether the model has a trained pooler.
        precision: The number type of the forward pass.

    Raises:
        SpaceliteError: The weights are damaged or belong to a different model, or there is no such
            layer.
    """

    def __init__(
        self,
        files: BackboneFiles,
        *,
        layer: int,
        device: str,
        all_layers: bool = False,
        others: tuple[int, ...] = (),
    ) -> None:
        import torch

        self.name = files.name
        self.layer, self.all_layers, self.others = layer, all_layers, others
        self.device = device
        self.precision = forward_precision(device)
        self.model, missing = _load_model(files, device)
        # A forward pass of one token shows width, layers and pooler of any architecture.
        with torch.inference_mode():
            probe = self.model(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
                output_hidden_states=True,
            )
        self.width = int(probe.last_hidden_state.shape[-1])
        self.has_pooler = getattr(probe, "pooler_output", None) is not None and not missing
        self._depth = len(probe.hidden_states)
        alike = len({states.shape for states in probe.hidden_states}) == 1
        self.layers = self._depth if alike else 0
        self.check_layers(layer, *others)

    def check_layers(self, *layers: int) -> None:
        """Raise SpaceliteError if there is no such layer, or if two of them are the same."""
        seen: dict[int, int] = {}
        for layer in layers:
            check_layer(layer, self._depth, self.name)
            same = seen.setdefault(layer % self._depth, layer)
            if same != layer:
                raise SpaceliteError(
                    f"layers {same} and {layer} of {self.name} are the same: leave one out"
                )

    def reading(self, *, layer: int, all_layers: bool = False) -> Backbone:
        """The same model, read in another layer, with the hidden states of all layers or without.
        Raises SpaceliteError if there is no such layer."""
        self.check_layers(layer)
        other = copy.copy(self)
        other.layer, other.all_layers, other.others = layer, all_layers, ()
        return other

    def with_precision(self, precision: str) -> Backbone:
        """The same model with a forward pass in another number type."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def hidden_states(
        self,
        ids: Array | torch.Tensor,
        type_ids: Array | torch.Tensor | None,
        mask: Array | torch.Tensor | None,
    ) -> HiddenStates:
        """Run the model on B texts of n tokens each. From page-locked memory, a GPU copies the
        arguments without waiting.

        Args:
            ids: Token ids, (B, n).
            type_ids: Segment ids, (B, n); None if the model has no segments.
            mask: 1 for tokens and 0 for padding, (B, n); None without padding.
        """
        import torch

        inputs = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": mask}
        tensors = {
            name: torch.as_tensor(whole, dtype=torch.long).to(self.device, non_blocking=True)
            for name, whole in inputs.items()
            if whole is not None
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
            read = (self.layer, *self.others)
            deeper = self.all_layers or read != (-1,)
            output = self.model(**tensors, output_hidden_states=deeper)
            hidden, *others = (
                output.last_hidden_state if layer == -1 else output.hidden_states[layer]
                for layer in read
            )
            pooled = output.pooler_output if self.has_pooler else None
        return HiddenStates(
            hidden.float(),
            None if pooled is None else pooled.float(),
            tuple(output.hidden_states) if self.all_layers else None,
            tuple(states.float() for states in others),
        )


def _load_model(files: BackboneFiles, device: str) -> tuple[Any, bool]:
    """Load the frozen model; also return whether its pooler is missing from the weights."""
    # Otherwise transformers looks for a converted copy of the weights on the hub.
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
            f"{files.name} cannot be loaded from {files.folder}: {loading_problem(error)}"
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
    """Names of the missing weights, `pooler` for those of a pooler; a decoder is not needed."""
    needed = [key for key in keys if not key.startswith("decoder.")]
    return {"pooler" if "pooler" in key.split(".") else key for key in needed}
