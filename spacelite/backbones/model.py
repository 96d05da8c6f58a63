"""Token ids -> hidden states: the frozen model, and its forward passes in batches whose stages
overlap. Memory that runs out makes the batches smaller."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from spacelite import pipeline
from spacelite.backbones import files as backbone_files
from spacelite.backbones import tokenizer
from spacelite.backbones.files import BackboneFiles, loading_problem
from spacelite.backbones.tokenizer import Tokenized
from spacelite.errors import SpaceliteError, is_out_of_memory, one_line
from spacelite.files import human_bytes
from spacelite.lazy import importing
from spacelite.memory import free_memory
from spacelite.pipeline import Clock, Stage
from spacelite.progress import OnProgress
from spacelite.types import Array

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Fetched: TypeAlias = "Callable[[], Array]"
Result = TypeVar("Result")
Encode: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Measure: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"

# On a CPU each thread runs batches of its own: that leaves no core waiting for another, and the
# hidden states of a batch do not depend on how many cores there are. More threads than this share a
# batch between some of them, because Python itself starts the operations of one at a time.
MOST_WORKERS = 16
CPU_TOKENS, GPU_TOKENS = 1024, 65536
DEVICES = Path("/dev")
GPU_DRIVERS = ("nvidia*", "nvhost*", "nvgpu", "kfd", "dxg")  # NVIDIA, Jetson, AMD, both in WSL
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# Instructions of processors that multiply numbers of a type, by torch's names of them.
INSTRUCTIONS = {
    "bfloat16": {"amx_bf16": "AMX", "avx512_bf16": "AVX-512", "sve_bf16": "SVE", "bf16": "NEON"},
    "float16": {"amx_fp16": "AMX", "avx512_fp16": "AVX-512", "fp16_arith": "NEON"},
}
FINISHERS = 2
MOST_PROBED = 16  # tokens of the forward passes that show what a model gives
# Positions whose encoding depends on the longest text that the model has seen.
RESCALED_POSITIONS = re.compile(r'"(rope_)?type": "(dynamic|longrope)"')


def resolve_device(device: str) -> str:
    """The device, checked to work; for `auto`, `cuda` if there is a GPU, else `cpu`. torch is asked
    only where it can give another answer than `cpu`."""
    if device == "cpu" or (device == "auto" and not _has_gpu_driver()):
        return "cpu"
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


def _has_gpu_driver() -> bool:
    """Whether the system has a device file of a driver of GPUs, without which torch finds none."""
    if sys.platform == "darwin":  # whose GPUs are no `cuda`
        return False
    return sys.platform != "linux" or any(any(DEVICES.glob(name)) for name in GPU_DRIVERS)


def forward_precision(device: str, precision: str = "auto") -> str:
    """The number type of the weights and of the forward pass; for `auto`, bfloat16 or float16 on a
    GPU, float32 on a CPU."""
    if precision != "auto":
        return precision
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def instructions(precision: str) -> str | None:
    """The instructions of this processor for a number type of half precision; None for none."""
    import torch

    # torch 2.6 has no such function.
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return next((said for name, said in INSTRUCTIONS[precision].items() if known.get(name)), None)


def precision_here(precision: str, device: str) -> str:
    """The number type for what was computed in another one elsewhere: the same if the device
    computes in it itself, rather than by way of float32."""
    if device.startswith("cuda"):
        import torch

        known = precision != "bfloat16" or torch.cuda.is_bf16_supported()
    else:
        known = precision == "float32" or instructions(precision) is not None
    return precision if known else forward_precision(device)


def check_layer(layer: int, layers: int, backbone: str) -> None:
    """Raise SpaceliteError unless a backbone of so many layers (with the embedding's) has this."""
    if not -layers <= layer < layers:
        raise SpaceliteError(
            f"layer={layer}: {backbone} has hidden states {-layers} to {layers - 1}", ["layer"]
        )


class HiddenStates(NamedTuple):
    """What the model returns for B texts of n tokens each, float32 on the backbone's device."""

    hidden: torch.Tensor  # (B, n, d)
    pooled: torch.Tensor | None  # (B, d); None without a pooler
    # Of the embedding layer and of all others, the mean over each text's own tokens,
    # (B, layers, d); None unless they were asked for.
    means: torch.Tensor | None
    others: tuple[torch.Tensor, ...] = ()  # of the backbone's `others`, (B, n, d) each


class Backbone:
    """A frozen transformer, loaded and ready to run, read in one layer (-1 the last, 0 the
    embedding layer), in `others` too, or in all. `layers` is the number of layers, the embedding
    layer included; 0 if they differ in width. `is_causal` says whether tokens see none after them,
    as in decoders."""

    def __init__(
        self,
        files: BackboneFiles,
        *,
        layer: int,
        device: str,
        precision: str = "auto",
        all_layers: bool = False,
        others: tuple[int, ...] = (),
    ) -> None:
        self.name = files.name
        self.layer, self.all_layers, self.others = layer, all_layers, others
        self.device = device
        self.precision = forward_precision(device, precision)
        loaded, missing = _load_model(files, device, self.precision)
        self._mixed = False
        try:
            probed = _probe(loaded, self.name, device, self._context)
        except SpaceliteError:
            if self.precision == "float32":
                raise
            self._mixed = True  # MRA's attention gives float32, whatever its weights are
            probed = _probe(loaded, self.name, device, self._context)
        self.model, probe, self._shortest, self._changes = probed
        pooled = None if missing else getattr(probe, "pooler_output", None)
        self._pooled_width = None if pooled is None else int(pooled.shape[-1])
        self._last_width = int(probe.last_hidden_state.shape[-1])
        # A layer with fewer tokens than the text (Funnel's), or several streams of hidden states
        # (DeepSeek-V4's), has no row for each token.
        rows = probe.last_hidden_state.shape[:-1]
        self._widths = [
            int(states.shape[-1]) if states.shape[:-1] == rows else 0
            for states in _layers_of(probe)
        ]
        self._depth = len(self._widths)
        self.layers = self._depth if {*self._widths} == {self._last_width} else 0
        self._layers = _LayerHooks.of(self.model, self._run_probe)
        self.is_causal = self._sees_only_earlier_tokens()
        self.check_layers(layer, *others)

    @property
    def width(self) -> int:
        """The width d of the hidden states of the layer that is read."""
        return self._width(self.layer)

    @property
    def has_pooler(self) -> bool:
        """Whether the backbone has a trained pooler, whose output is as wide as the layer."""
        return self._pooled_width == self.width

    def _width(self, layer: int) -> int:
        return self._last_width if layer == -1 else self._widths[layer]

    def check_layers(self, *layers: int) -> None:
        """Raise SpaceliteError if there is no such layer, or if two of them are the same."""
        seen: dict[int, int] = {}
        for layer in layers:
            check_layer(layer, self._depth, self.name)
            if not self._width(layer):
                raise SpaceliteError(
                    f"layer={layer} of {self.name} does not have one hidden state for each token: "
                    "choose another layer",
                    ["layer"],
                )
            same = seen.setdefault(layer % self._depth, layer)
            if same != layer:
                raise SpaceliteError(
                    f"layers {same} and {layer} of {self.name} are the same: leave one out"
                )

    def reading(
        self, *, layer: int, all_layers: bool = False, others: tuple[int, ...] = ()
    ) -> Backbone:
        """The same model, read in other layers, with means of all layers or without."""
        self.check_layers(layer, *others)
        other = copy.copy(self)
        other.layer, other.all_layers, other.others = layer, all_layers, others
        return other

    def _context(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        import torch

        context = ExitStack()
        context.enter_context(torch.inference_mode())
        if self._mixed:
            kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
            context.enter_context(torch.autocast(kind, dtype=dtype))
        return context

    def hidden_states(
        self,
        ids: Array | torch.Tensor,
        type_ids: Array | torch.Tensor | None,
        mask: Array | torch.Tensor | None,
        weights: Array | torch.Tensor | None = None,
    ) -> HiddenStates:
        """Run the model on B texts of n tokens each; all arguments are (B, n). From page-locked
        memory, a GPU copies them without waiting. `weights` are those of the tokens in the means of
        layers, by default equal ones that add up to 1."""
        import torch

        inputs = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": mask}
        tensors = {
            name: torch.as_tensor(whole, dtype=torch.long).to(self.device, non_blocking=True)
            for name, whole in inputs.items()
            if whole is not None
        }
        length = tensors["input_ids"].shape[1]
        if padded := length < self._shortest:  # as in a batch with longer texts
            tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
            tensors = {
                name: torch.nn.functional.pad(tensor, (0, self._shortest - length))
                for name, tensor in tensors.items()
            }
        read = (self.layer, *self.others)
        wanted = {layer % self._depth for layer in read if layer != -1}
        states: dict[int, torch.Tensor] = {}
        means: dict[int, torch.Tensor] = {}
        weights = _mean_weights(weights, mask, self.device)

        def take(layer: int, rows: torch.Tensor) -> None:
            rows = rows[:, :length] if padded else rows
            if layer in wanted:
                states[layer] = rows
            if self.all_layers:
                means[layer] = _mean(rows, weights)

        with self._context():
            model = _copied(self.model) if self._changes else self.model
            if not wanted and not self.all_layers:
                output = model(**tensors)
            elif self._layers is not None:
                output = self._layers.run(partial(model, **tensors), take)
            else:
                output = model(**tensors, output_hidden_states=True)
                for layer, rows in enumerate(output.hidden_states):
                    take(layer, rows)
            pooled = output.pooler_output if self._pooled_width else None
        last = output.last_hidden_state
        last = last[:, :length] if padded else last
        rows_of = [last if layer == -1 else states[layer % self._depth] for layer in read]
        for layer, rows in zip(read, rows_of, strict=True):
            expected = (len(ids), length, self._width(layer))
            if rows.shape != expected:
                raise SpaceliteError(
                    f"{self.name} gives hidden states of shape {tuple(rows.shape)} in layer "
                    f"{layer}, not {expected}: choose another layer or backbone",
                    ["layer", "backbone"],
                )
        hidden, *others = (rows.float() for rows in rows_of)
        every = [means[layer] for layer in range(self._depth)] if self.all_layers else None
        return HiddenStates(
            hidden,
            None if pooled is None else pooled.float(),
            None if every is None else torch.stack(every, dim=1),
            tuple(others),
        )

    def _run_probe(self, ids: Sequence[int] = (), **options: bool) -> Any:
        """The output of the model for a few tokens; by default, for as few as it takes."""
        import torch

        model = _copied(self.model) if self._changes else self.model
        tokens = torch.as_tensor(ids or [0] * self._shortest, device=self.device)[None]
        with self._context():
            return model(input_ids=tokens, **options)

    def _sees_only_earlier_tokens(self) -> bool:
        """Whether a token's hidden states depend on tokens before it, but on none after it."""
        import torch

        one, other = (6, 7) if getattr(self.model.config, "vocab_size", 0) > 7 else (0, 1)
        same = [one] * MOST_PROBED
        whole = self._run_probe(same).last_hidden_state[0].float()

        def moved(ids: Sequence[int], token: int) -> bool:
            hidden = self._run_probe(ids).last_hidden_state[0].float()
            difference = torch.linalg.norm(hidden[token] - whole[token])
            return bool(difference > 1e-5 * torch.linalg.norm(whole[token]))

        return moved([other, *same[1:]], -1) and not moved([*same[:-1], other], 0)


class _Place(NamedTuple):
    """Where a forward pass has a layer's hidden states: among the tensors that a module takes
    (`before`) or gives, when it is called for the `call`-th time."""

    module: str
    call: int
    before: bool
    position: int


class _LayerHooks:
    """Hands over the hidden states of each layer as soon as a forward pass has them, so that those
    of all layers are never in memory at once, as with `output_hidden_states`."""

    def __init__(self, model: Any, places: Mapping[_Place, int]) -> None:
        self._last = len(places)  # the layer that is the output itself
        self._running = running = threading.local()  # each thread runs a batch of its own

        def visited(name: str, before: bool, tensors: list[torch.Tensor]) -> None:
            if getattr(running, "take", None) is None:
                return
            for index, tensor in enumerate(tensors):
                place = _Place(name, running.calls[name], before, index)
                if place in places:
                    running.take(places[place], tensor)
            running.calls[name] += not before

        modules = {place.module for place in places}
        self._handles = _hooked(model, visited, lambda name: name in modules)

    def run(self, forward: Callable[[], Any], take: Callable[[int, torch.Tensor], object]) -> Any:
        """The output of a forward pass. `take` gets the number and hidden states of each layer."""
        self._running.take, self._running.calls = take, Counter()
        try:
            output = forward()
        finally:
            self._running.take = None
        take(self._last, output.last_hidden_state)
        return output

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()

    @classmethod
    def of(cls, model: Any, run: Callable[..., Any]) -> _LayerHooks | None:
        """The hooks of a model, which `run` runs on a few tokens; None if a layer's hidden states
        are nowhere among what its modules take and give, as XLNet's, which it turns at the end."""
        import torch

        seen: dict[int, _Place] = {}
        held: list[torch.Tensor] = []  # so that no later tensor has the id of an earlier one
        calls: Counter[str] = Counter()

        def visited(name: str, before: bool, tensors: list[torch.Tensor]) -> None:
            held.extend(tensors)
            for index, tensor in enumerate(tensors):
                seen.setdefault(id(tensor), _Place(name, calls[name], before, index))
            calls[name] += not before

        handles = _hooked(model, visited, lambda name: True)
        output = run(output_hidden_states=True)
        for handle in handles:
            handle.remove()
        layers = _layers_of(output)
        if layers[-1] is not output.last_hidden_state or not {*map(id, layers[:-1])} <= {*seen}:
            return None
        hooks = cls(model, {seen[id(rows)]: number for number, rows in enumerate(layers[:-1])})
        taken: dict[int, torch.Tensor] = {}
        hooks.run(run, taken.__setitem__)
        if taken.keys() == {*range(len(layers))} and all(
            torch.equal(taken[number], rows) for number, rows in enumerate(layers)
        ):
            return hooks
        hooks.remove()  # a module changed what it was given, or is only there for these outputs
        return None


def _hooked(model: Any, visited: Callable[..., None], chosen: Callable[[str], bool]) -> list[Any]:
    """Let `visited` know the tensors that each chosen module of a model takes, before it runs, and
    those that it gives. Returns what removes the hooks."""

    def hooks(name: str, module: Any) -> tuple[Any, Any]:
        def taken(module: Any, arguments: Any, options: Any) -> None:
            visited(name, True, list(_tensors((arguments, options))))

        def given(module: Any, arguments: Any, output: Any) -> None:
            visited(name, False, list(_tensors(output)))

        return (
            module.register_forward_pre_hook(taken, with_kwargs=True),
            module.register_forward_hook(given),
        )

    modules = [(name, module) for name, module in model.named_modules() if chosen(name)]
    return [handle for name, module in modules for handle in hooks(name, module)]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a module takes or gives."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _layers_of(output: Any) -> tuple[torch.Tensor, ...]:
    """The hidden states of all layers; a model without any gives those of its embeddings alone."""
    return output.hidden_states or (output.last_hidden_state,)


def _probe(
    model: Any, name: str, device: str, context: Callable[[], AbstractContextManager[object]]
) -> tuple[Any, Any, int, bool]:
    """The model to run, its output for as few tokens as it takes (Funnel takes no single one),
    which shows widths, layers and pooler of any architecture, how many tokens these are, and
    whether a forward pass changes the model, as BigBird's does, which keeps full attention after a
    short text."""
    import torch

    problem: Exception | None = None
    for length in range(1, MOST_PROBED + 1):
        probed = _copied(model)  # later texts are not to be changed
        before, weights = _state(probed), _versions(probed.parameters())
        ids = torch.zeros(1, length, dtype=torch.long, device=device)
        try:
            with context():
                output = probed(input_ids=ids, output_hidden_states=True)
        except Exception as error:  # whatever the model's own class raises
            if is_out_of_memory(error):
                raise
            problem = error
            continue
        last = getattr(output, "last_hidden_state", None)
        if last is None or last.ndim != 3 or getattr(output, "hidden_states", None) is None:
            continue
        if _versions(probed.parameters()) != weights:  # RWKV scales them once, and notes that
            return probed, output, length, False
        scaled = RESCALED_POSITIONS.search(model.config.to_json_string())
        return model, output, length, bool(scaled) or _state(probed) != before
    if problem is not None and model.dtype != torch.float32:
        precision = str(model.dtype).removeprefix("torch.")
        raise SpaceliteError(
            f"{name} does not run with precision={precision}: {one_line(problem)}; use "
            "precision=float32",
            ["precision"],
        ) from problem
    words = f" ({one_line(problem)})" if problem is not None else ""
    raise SpaceliteError(
        f"{name} gives no hidden states of texts: a {type(model).__name__} needs more than token "
        f"ids, or returns something else{words}; choose another backbone",
        ["backbone"],
    ) from problem


def _copied(model: Any) -> Any:
    """A copy of a model that shares its weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def _state(model: Any) -> list[tuple[object, object]]:
    """What a forward pass may change in a model: all that its modules keep, weights aside."""
    import torch

    kept: list[Any] = list(model.modules())
    # Such as Funnel's attention structure, which is no module.
    kept += [
        value
        for module in kept
        for value in vars(module).values()
        if hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module | type)
    ]
    values = [
        (name, value if isinstance(value, str | int | float | None) else id(value))
        for holder in kept
        for name, value in vars(holder).items()
        if "hook" not in name  # transformers adds some to read layers
    ]
    return [*values, *_versions(model.buffers())]


def _versions(tensors: Iterable[torch.Tensor]) -> list[tuple[object, object]]:
    """What differs once a tensor was replaced or written."""
    return [(id(tensor), tensor.is_inference() or tensor._version) for tensor in tensors]


def _load_model(files: BackboneFiles, device: str, precision: str) -> tuple[Any, bool]:
    """Load the frozen model; also return whether its pooler is missing from the weights."""
    # Otherwise transformers looks for a converted copy of the weights on the hub.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    with importing():
        import torch

    _check_memory(files, device, precision)
    try:
        with importing(), quietly():  # the architecture's own modules
            if files.random_seed is not None:
                return _frozen(_random_model(files), device, precision), False
            model, info = _model_class(files.folder).from_pretrained(
                files.folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=getattr(torch, precision),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
    except Exception as error:  # whatever the model's own class raises
        raise SpaceliteError(
            f"{files.name} cannot be loaded from {files.folder}: {loading_problem(error)}"
        ) from error
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
    return _frozen(model, device, precision), bool(missing)


def _random_model(files: BackboneFiles) -> Any:
    """The model with weights as its class initialises them, drawn with the seed."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        files.folder, local_files_only=True, trust_remote_code=False
    )
    kind = _model_class(files.folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(files.random_seed)
        return kind.from_config(config) if hasattr(kind, "from_config") else kind(config)


def _frozen(model: Any, device: str, precision: str) -> Any:
    """A loaded model, ready to run: of encoder and decoder the encoder alone."""
    import torch

    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model.config.return_dict = True  # some save it as false, and would return a tuple
    model.config.use_cache = False  # keys and values of former tokens, which generation needs
    # Those that a class makes as float32 tensors stay so, such as DeBERTa's biases.
    lists = (model._keep_in_fp32_modules, model._keep_in_fp32_modules_strict)
    exact = {module for modules in lists for module in modules or ()}
    for weight_name, weight in model.named_parameters():
        if weight.is_floating_point() and not exact & {*weight_name.split(".")}:
            weight.data = weight.data.to(getattr(torch, precision))
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' messages and bars."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = (
        transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    )  # fmt: skip
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _check_memory(files: BackboneFiles, device: str, precision: str) -> None:
    """Raise SpaceliteError if there is too little memory for the weights: those in host memory come
    first, and a system that runs out of it ends the process."""
    import torch

    needed = files.parameters * getattr(torch, precision).itemsize
    for place in dict.fromkeys(("cpu", device)):
        free = free_memory(place)
        if needed > free:
            half = ", or precision=bfloat16" if precision == "float32" else ""
            raise SpaceliteError(
                f"the weights of {files.name} take {human_bytes(needed)} in {precision}, and "
                f"{human_bytes(free)} of memory ({place}) are free: free some, or choose a smaller "
                f"backbone{half}",
                ["backbone", "precision"],
            )


def _model_class(folder: Path) -> Any:
    """The class of a saved model: an encoder that was saved without its decoder is no T5Model."""
    import transformers

    names = json.loads((folder / "config.json").read_text()).get("architectures") or [""]
    if str(names[0]).endswith("EncoderModel"):
        return getattr(transformers, str(names[0]), transformers.AutoModel)
    return transformers.AutoModel


def _missing_weights(keys: Iterable[str]) -> set[str]:
    """Names of the missing weights, `pooler` for those of a pooler; a decoder is not needed."""
    needed = [key for key in keys if not key.startswith("decoder.")]
    return {"pooler" if "pooler" in key.split(".") else key for key in needed}


class Transfers:
    """Copies between host memory and a device that does not wait for them: through page-locked
    memory and, on the way back, in a stream of their own. On a CPU there is nothing to copy."""

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.device(device).type == "cuda"
        self._back: Any = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]

    def ready(self, array: Array) -> Array | torch.Tensor:
        """Host memory with the same whole numbers, from which the device copies by itself."""
        import torch

        wide = array.astype(np.int64)
        return torch.from_numpy(wide).pin_memory() if self._cuda else wide

    def fetch(self, tensor: torch.Tensor) -> Fetched:
        """Start copying a tensor to host memory; the returned function waits, in any thread."""
        import torch

        if self._back is None:
            return tensor.cpu().numpy
        self._back.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._back):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._back)  # its memory is not used again before that
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._back)

        def wait() -> Array:
            copied.synchronize()
            array: Array = host.numpy()
            return array

        return wait


class Output(NamedTuple):
    """What the forward passes of B texts of n tokens each give."""

    states: list[Array]  # of each layer that the backbone reads, (B, n, ...) as `encode` returns
    pooled: Array | None  # (B, d) float32; None without a pooler
    means: Array | None  # (B, layers, d) float16; None unless the backbone keeps all layers
    # Of each forward pass the number of tokens, and what `measure` returned for each layer.
    measured: list[tuple[int, list[Array]]]

    @property
    def hidden(self) -> Array:
        """Hidden states of the only layer, or of the first."""
        return self.states[0]


def default_budget(device: str) -> int:
    """Default tokens per forward pass: 1,024 on a CPU, of each thread; 65,536 on a GPU."""
    return CPU_TOKENS if device == "cpu" else GPU_TOKENS


def plan_batches(lengths: Array, tokens_per_batch: int) -> Iterator[Array]:
    """Plan batches of examples of equal length, longest first, so that nothing is padded.

    The plan depends only on the lengths and the budget: a resumed run forms the same batches and so
    writes the same bytes. Equal lengths cost at most one small batch per length, and make an
    attention mask unnecessary. `lengths` is (N,); a longer example is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, tokens_per_batch // int(lengths[run[0]]))
        for start in range(0, len(run), size):
            yield run[start : start + size]


class Forward:
    """Runs a backbone on batches, in stages that overlap: preparing, computing and finishing, and
    on a GPU launching its operations.

    `encode` takes hidden states (B, n, d) float32 to what is kept of them, and `measure` both to
    what is to be known about them, on the same device. `reduce` has a function for each layer that
    takes its hidden states to ones of fewer dimensions first, or none. `limit`, the most tokens of
    a forward pass, is halved each time memory runs out.
    """

    def __init__(
        self,
        model: Backbone,
        tokens: Tokenized,
        encode: Encode,
        limit: int,
        *,
        measure: Measure | None = None,
        reduce: Sequence[Encode] = (),
        clock: Clock | None = None,
    ) -> None:
        self.model, self.tokens, self.limit = model, tokens, limit
        self.encode, self.measure, self.reduce = encode, measure, reduce
        self.clock = clock or Clock()
        self._transfers = Transfers(model.device)

    def batches(
        self,
        batches: Iterable[Array],
        finish: Callable[[Array, Output], Result],
        *,
        sharing: bool = False,
    ) -> Generator[Result]:
        """Run batches of texts of equal length; yield what `finish`, in threads of its own, makes
        of each batch and its output, in order. With `sharing`, the threads of a CPU share a batch
        if there are fewer batches than threads: faster, but the last bits then depend on that."""
        import torch

        listed = list(batches)
        workers, threads = self._threads(len(listed) if sharing else MOST_WORKERS)
        # A GPU computes while Python waits for its results.
        starting, waiting = ("computing", "finishing") if threads else ("launching", "computing")
        begin = partial(torch.set_num_threads, threads) if threads else None
        stages = [
            Stage("preparing", self._prepared),
            Stage(starting, self._started, workers, begin),
            Stage(waiting, _joined),
            Stage("finishing", lambda batch: finish(*batch), FINISHERS),
        ]
        ahead = 2 * (workers + FINISHERS)  # batches on the way
        with _threads_restored:
            yield from pipeline.run(listed, stages, ahead=ahead, clock=self.clock)

    def texts(
        self,
        examples: Array,
        finish: Callable[[Array, Output], Result],
        on_progress: OnProgress,
    ) -> Generator[Result]:
        """Run some of the texts, (n,) indices, as `batches` with `sharing`."""
        lengths = np.array([len(self.tokens.ids[example]) for example in examples], np.int64)
        plan = [examples[batch] for batch in plan_batches(lengths, self.limit)]
        done, total = 0, int(lengths.sum())
        with pipeline.reading(self.batches(plan, finish, sharing=True)) as results:
            for batch, result in zip(plan, results, strict=True):
                yield result
                done += len(batch) * len(self.tokens.ids[batch[0]])
                on_progress("embed", done, total)

    def _threads(self, most: int) -> tuple[int, int]:
        """How many batches are computed at once, and with how many threads each (0 on a GPU)."""
        import torch

        if self.model.device != "cpu":
            return 1, 0
        threads = torch.get_num_threads()
        workers = max(1, min(threads, most, MOST_WORKERS))
        return workers, threads // workers

    def _prepared(self, batch: Array) -> tuple[Array, list[Any]]:
        tokens = self.tokens
        windows, _ = self._windows(len(tokens.ids[batch[0]]))

        def stack(arrays: list[Array] | None) -> Any:
            if arrays is None:
                return None
            return self._transfers.ready(
                np.stack([arrays[example] for example in batch])[:, windows]
            )

        return batch, [stack(tokens.ids), stack(tokens.type_ids), stack(tokens.masks)]

    def _windows(self, length: int) -> tuple[Array, Array]:
        """As `Windows.of`, of texts of so many tokens, with the places of those that are kept;
        they are one window if none are cut."""
        windows, places = np.arange(length)[None], np.arange(length)
        if self.tokens.windows is not None:
            windows, places = self.tokens.windows.of(length)
        return windows, places[self.tokens.skipped(length) :]

    def _started(
        self, prepared: tuple[Array, list[Any]]
    ) -> tuple[Array, list[Callable[[], Output]]]:
        import torch

        batch, inputs = prepared  # (B, W, n) of W windows each
        length = len(self.tokens.ids[batch[0]])
        _, places = self._windows(length)
        while True:
            size = max(1, self.limit // length)
            try:
                return batch, [
                    self._pass([x if x is None else x[low : low + size] for x in inputs], places)
                    for low in range(0, len(batch), size)
                ]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise SpaceliteError(
                        f"memory is too small for one text of {length} tokens: use a smaller "
                        "max_length or backbone",
                        ["max_length", "backbone"],
                    ) from error
                smaller = max(length, min(self.limit, size * length) // 2)
                if smaller < self.limit:
                    self.limit = smaller
                    log.warning(
                        "out of memory: continuing with %s tokens per batch", f"{smaller:,}"
                    )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _pass(self, inputs: list[Any], places: Array) -> Callable[[], Output]:
        """Run texts, (B, W, n) of W windows each, and start copying what is kept of them to host
        memory; the returned function waits."""
        import torch

        _, windows, length = inputs[0].shape
        rows_of: list[Any] = [x if x is None else x.reshape(-1, length) for x in inputs]
        if len(places) == windows * length:
            output = self.model.hidden_states(*rows_of)
        else:
            output = self._joined_windows(rows_of, windows, places)
        states = [output.hidden, *output.others]
        if self.reduce:
            of_layers = zip(self.reduce, states, strict=True)
            states = [reduce(hidden) for reduce, hidden in of_layers]
        rows = [self.encode(hidden) for hidden in states]
        fetch = self._transfers.fetch
        fetched = [fetch(tensor) for tensor in rows]
        pooled = None if output.pooled is None else fetch(output.pooled)
        means = None if output.means is None else fetch(output.means.to(torch.float16))
        measured = []
        if self.measure:
            pairs = zip(states, rows, strict=True)
            measured = [fetch(self.measure(hidden, kept)) for hidden, kept in pairs]
        tokens = len(output.hidden) * output.hidden.shape[1]
        return lambda: Output(
            [wait() for wait in fetched],
            None if pooled is None else pooled(),
            None if means is None else means(),
            [(tokens, [wait() for wait in measured])] if measured else [],
        )

    def _joined_windows(self, inputs: list[Any], windows: int, places: Array) -> HiddenStates:
        """Run the windows of B texts, (B * W, n), and put together what texts are made of."""
        import torch

        rows, length = inputs[0].shape
        weights = np.zeros(windows * length, np.float32)
        weights[places] = 1 / len(places)
        inputs = [*inputs, np.tile(weights.reshape(windows, length), (rows // windows, 1))]
        size = max(1, self.limit // length)
        passes = []
        for low in range(0, rows, size):
            part: list[Any] = [x if x is None else x[low : low + size] for x in inputs]
            passes.append(self.model.hidden_states(*part))
        index = torch.as_tensor(places, device=passes[0].hidden.device)

        def whole(layer: Iterable[torch.Tensor]) -> torch.Tensor:
            states = torch.cat(list(layer))
            return states.view(-1, windows * length, states.shape[-1])[:, index]

        hidden, *others = (
            whole(layer)
            for layer in zip(*([run.hidden, *run.others] for run in passes), strict=True)
        )
        means = pooled = None
        if passes[0].means is not None:
            parts = torch.cat([run.means for run in passes if run.means is not None])
            means = parts.view(-1, windows, *parts.shape[1:]).sum(dim=1)
        if passes[0].pooled is not None:  # of the first window
            pooled = torch.cat([run.pooled for run in passes if run.pooled is not None])[::windows]
        return HiddenStates(hidden, pooled, means, tuple(others))


def _joined(started: tuple[Array, list[Callable[[], Output]]]) -> tuple[Array, Output]:
    """Wait for the forward passes of a batch, and join their outputs."""
    batch, passes = started
    parts = [wait() for wait in passes]
    if len(parts) == 1:
        return batch, parts[0]
    return batch, Output(
        [np.concatenate(layer) for layer in zip(*(part.states for part in parts), strict=True)],
        _end_to_end([part.pooled for part in parts]),
        _end_to_end([part.means for part in parts]),
        [measured for part in parts for measured in part.measured],
    )


def _end_to_end(arrays: Sequence[Array | None]) -> Array | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def _mean_weights(
    weights: Array | torch.Tensor | None, masks: Array | torch.Tensor | None, device: str
) -> torch.Tensor | None:
    """The weight of each position in its text's mean, (B, 1, n), from weights or masks (B, n); None
    if all are equal."""
    import torch

    if weights is not None:
        return torch.as_tensor(weights, dtype=torch.float32, device=device)[:, None]
    if masks is None:
        return None
    own = torch.as_tensor(masks, dtype=torch.float32, device=device)
    return (own / own.sum(dim=1, keepdim=True))[:, None]


def _mean(states: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The mean of a layer's hidden states (B, n, d) over each text's own tokens: (B, d)."""
    import torch

    if weights is None:
        return states.mean(dim=1, dtype=torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return torch.bmm(weights, states.float())[:, 0]


class _ThreadsRestored:
    """Threads in this context set torch's number of threads, for others too: the last to leave it
    gives torch as many as it had before."""

    def __init__(self) -> None:
        # The garbage collector may leave a context while the same thread enters another.
        self._lock = threading.RLock()
        self._inside = self._before = 0

    def __enter__(self) -> None:
        import torch

        with self._lock:
            if not self._inside:
                self._before = torch.get_num_threads()
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_num_threads(self._before)


_threads_restored = _ThreadsRestored()


# What a process loads once, whoever needs it.

MOST = 2  # backbones that are held; each takes the memory of its weights


def held_backbone(
    files: BackboneFiles, *, layer: int, device: str, precision: str, all_layers: bool
) -> Backbone:
    """A backbone that the process holds; with `all_layers`, only if these are alike in width."""
    model = _loaded(files, device, precision)
    return model.reading(layer=layer, all_layers=all_layers and model.layers > 0)


@lru_cache(maxsize=MOST)
def _loaded(files: BackboneFiles, device: str, precision: str) -> Backbone:
    return Backbone(files, layer=-1, device=device, precision=precision)


def forget() -> None:
    """Free the backbones and tokenizers that are held."""
    for cached in (
        backbone_files.located_as, _loaded, tokenizer.held_tokenizer, tokenizer.held_words
    ):  # fmt: skip
        cached.cache_clear()
