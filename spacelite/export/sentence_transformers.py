"""The form `sentence-transformers`: a run as stock modules of that library, so that no code of this
one is needed and none is trusted. `encode` gives the logits.

A block on the means of all layers is a chain: the vector of each layer is selected and pooled, and
a map adds what it contributes to what came before, which travels where a model may give the vector
of its own for a text (`cls_token_embeddings`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from spacelite import files
from spacelite.backbones.model import quietly
from spacelite.errors import SpaceliteError
from spacelite.export import layers
from spacelite.export.form import Form, Source
from spacelite.export.layers import Linear
from spacelite.export.transformers import (
    OTHERWISE,
    of_thresholds,
    save_tokenizer,
    unlike_tokenizers,
)
from spacelite.heads.additive import SPACE
from spacelite.heads.attention import UNITS
from spacelite.heads.pooling import POOLINGS
from spacelite.lazy import torch
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL
from spacelite.types import Array

PROMPT = "text"  # names the prefix that each text is read with
TOKENS, TEXT, SUM = "token_embeddings", "sentence_embedding", "cls_token_embeddings"
ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", None: "Identity"}
POOLED = {
    "first": "cls",
    "last": "lasttoken",
    "mean": "mean",
    "max": "max",
}  # pooling -> its name there
HEADS = ("space", "linear", "mlp", "logreg", "additive")


class SentenceTransformersForm(Form):
    """A run as a SentenceTransformer."""

    name = "sentence-transformers"
    extra = "sentence-transformers"
    modules: ClassVar[Sequence[str]] = ("sentence_transformers",)
    library = "sentence-transformers"

    @override
    def refusal(self, run: Run) -> str | None:
        head = run.head
        unknown = head.kind not in HEADS or not {*head.poolings} <= {*POOLED, "pooler", "layers"}
        cases = {
            "stock modules cannot look up n-grams of tokens": head.reads_ids,
            "stock modules have no such head": unknown,
            "stock modules have no block attention": UNITS in run.parameters,
            "it leaves out the first token of each text, and stock modules keep it": (
                run.record.spec.skip_first
            ),
        }
        why = next((why for why, applies in cases.items() if applies), unlike_tokenizers(run))
        return None if why is None else f"{why}: {OTHERWISE}"

    @override
    def write(self, source: Source, folder: Path) -> list[str]:
        from sentence_transformers import SentenceTransformer

        run = source.run
        backbone = source.predictor.model
        model = backbone.model
        if model.config.is_encoder_decoder:
            raise SpaceliteError(
                f"run {run.id} cannot be exported to={self.name}: of {backbone.name} only the "
                f"encoder is run: {OTHERWISE}",
                ["to"],
            )
        record, parts = run.record, folder / "backbone"
        with quietly():
            model.save_pretrained(parts)
            save_tokenizer(source, parts)
            # Under a name that no class takes for those of a classifier that it has to make up.
            extra: dict[str, Any] = {"labels": list(record.label_names)}
            if record.thresholds:
                extra["thresholds"] = record.thresholds
            if run.head.reads_layers:
                extra["output_hidden_states"] = True
            config = {**files.read_json(parts / "config.json"), **extra}
            files.write_json(parts / "config.json", config, sealed=False)
            transformer = _transformer(parts, run, backbone.layers)
        prompts = {PROMPT: record.spec.prefix} if record.spec.prefix else {}
        whole = SentenceTransformer(
            modules=[transformer, *_head(run, backbone.width, backbone.layers)],
            device="cpu",
            prompts=prompts,
            default_prompt_name=PROMPT if prompts else None,
        )
        with quietly():
            whole.save(str(folder), create_model_card=False)
        files.delete(parts)
        return of_thresholds(run)

    @override
    def probabilities(self, source: Source, folder: Path, texts: Sequence[str]) -> Array:
        from sentence_transformers import SentenceTransformer

        with quietly():
            model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        logits = model.encode(list(texts), show_progress_bar=False)
        probabilities: Array = source.run.record.task.probabilities(np.asarray(logits, np.float64))
        return probabilities

    @override
    def inexact(self, run: Run) -> str | None:
        dtype = run.record.spec.dtype
        if dtype != "float32":
            return (
                f"predict rounds hidden states to {dtype}, as they were stored, and stock modules "
                f"do not: embed the data with dtype=float32 and train again, or {OTHERWISE}"
            )
        if run.head.reads_layers:
            return (
                "predict rounds the means of layers to float16, as they were stored, and stock "
                f"modules do not: {OTHERWISE}"
            )
        return None

    @override
    def use(self, run: Run, name: str, folder: Path) -> str:
        final = "sigmoid()" if run.record.task is MULTI_LABEL else "softmax(-1)"
        return (
            "```python\n"
            "from sentence_transformers import SentenceTransformer\n\n"
            f"model = SentenceTransformer({json.dumps(name)})\n"
            'logits = model.encode(["a text"], convert_to_tensor=True)  # (1, labels)\n'
            f"print(dict(zip(model[0].model.config.labels, logits.{final}[0].tolist())))\n"
            "```"
        )


def _transformer(folder: Path, run: Run, depth: int) -> Any:
    """The module that runs the backbone: the layer that the head reads, or the pooler's output."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    output: Any = "last_hidden_state"
    if run.record.spec.layer != -1:
        output = ["hidden_states", run.record.spec.layer % depth]
    name = TOKENS
    if run.head.poolings == ("pooler",):
        output, name = "pooler_output", TEXT
    how = {"text": {"method": "forward", "method_output_name": output}}
    return Transformer(str(folder), modality_config=how, module_output_name=name)


def _head(run: Run, width: int, depth: int) -> list[Any]:
    """The modules of a head; the layers that it may read are `depth`, of the same width."""
    head = run.head
    if head.kind == "space":
        return _space(run, _classifier(run, run.parameters["classifier.bias"]))
    if head.kind == "additive":
        return _additive(run, width, depth)
    maps = layers.pooled(run)
    (pooling,) = head.poolings
    if pooling == "pooler":
        return [_dense(of) for of in maps]
    if POOLINGS[pooling].from_layers:
        return [*_of_layers(maps[0], width, depth), *(_dense(of) for of in maps[1:])]
    return [_pooling(POOLED[pooling], width), *(_dense(of) for of in maps)]


def _classifier(run: Run, bias: Array) -> Linear:
    return Linear(run.parameters["classifier.weight"], bias)


def _space(run: Run, classifier: Linear, first: str | None = None) -> list[Any]:
    """Concept coordinates of each token, their mean, and the classifier on it; with `first`, what
    was added up before is among its inputs."""
    of_tokens = layers.concepts(run)
    mode = "mean" if first is None else (first, "mean")
    return [
        _dense(of_tokens, read=TOKENS),
        _pooling(mode, len(of_tokens.bias)),
        _dense(classifier),
    ]


def _additive(run: Run, width: int, depth: int) -> list[Any]:
    """Blocks, added up: the one of layers first, then concept spaces."""
    known, names = run.parameters, run.head.names  # type: ignore[attr-defined]
    bias = known["classifier.bias"]
    if "layers" in names:
        block = Linear(known["layers.weight"], bias)
        if SPACE not in names:
            return _of_layers(block, width, depth)
        classes = len(bias)
        weight = np.concatenate([np.eye(classes, dtype=np.float32), known["classifier.weight"]], 1)
        after = Linear(weight, np.zeros(classes, np.float32))
        chain = _of_layers(block, width, depth, SUM)
        return [
            *chain,
            _selected(run.record.spec.layer % depth, width, depth),
            *_space(run, after, "cls"),
        ]
    mean = layers.whole(run, Linear(known["mean.weight"], bias)) if "mean" in names else None
    if mean is None:
        return _space(run, _classifier(run, bias))
    if SPACE not in names:
        return [_pooling("mean", width), _dense(mean)]
    return _side_by_side(run, mean, width)


def _side_by_side(run: Run, mean: Linear, width: int) -> list[Any]:
    """Concept spaces and a linear map of the same tokens: tanh(W x + b) of the first beside R x of
    the second, which is tanh(0) plus a residual."""
    from torch import nn

    spaces = layers.concepts(run)
    latent, classes = len(spaces.bias), len(mean.bias)
    # A residual of as many outputs as inputs is no map, but the inputs themselves.
    spare = int(latent + classes == width)
    outputs = latent + classes + spare
    dense = _dense(
        Linear(_padded(spaces.weight, outputs), _padded(spaces.bias, outputs), "tanh"),
        read=TOKENS,
        use_residual=True,
    )
    residual = np.zeros((outputs, width), np.float32)
    residual[latent : latent + classes] = mean.weight
    dense.residual.weight = nn.Parameter(torch.from_numpy(residual))
    weight = np.zeros((classes, outputs), np.float32)
    weight[:, :latent] = run.parameters["classifier.weight"]
    weight[:, latent : latent + classes] = np.eye(classes)
    return [dense, _pooling("mean", outputs), _dense(Linear(weight, mean.bias))]


def _padded(array: Array, rows: int) -> Array:
    """An array with rows of zeros behind its own."""
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def _of_layers(block: Linear, width: int, depth: int, into: str = TEXT) -> list[Any]:
    """A map of the means of all layers side by side: its outputs are a sum over layers."""
    modules: list[Any] = []
    outputs = len(block.bias)
    parts = np.split(block.weight, depth, axis=1)
    for layer, part in enumerate(parts):
        modules.append(_selected(layer, width, depth))
        if layer == 0:
            modules.append(_pooling("mean", width))
            step = Linear(part, block.bias)
        else:
            modules.append(_pooling(("cls", "mean"), width))
            before = np.eye(outputs, dtype=np.float32)
            step = Linear(np.concatenate([before, part], 1), np.zeros(outputs, np.float32))
        last = layer == depth - 1
        if last:
            step = Linear(step.weight, step.bias, block.activation)
        modules.append(_dense(step, into=into if last else SUM))
    return modules


def _selected(layer: int, width: int, depth: int) -> Any:
    """Makes a layer's hidden states those that are pooled."""
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling
    from torch import nn

    weights = torch.zeros(depth - layer)
    weights[0] = 1
    return WeightedLayerPooling(
        width, num_hidden_layers=depth - 1, layer_start=layer, layer_weights=nn.Parameter(weights)
    )


def _pooling(mode: str | tuple[str, ...], width: int) -> Any:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(width, pooling_mode=mode)


def _dense(of: Linear, *, read: str = TEXT, into: str | None = None, **options: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Dense
    from torch import nn

    outputs, inputs = of.weight.shape
    return Dense(
        inputs,
        outputs,
        activation_function=getattr(nn, ACTIVATIONS[of.activation])(),
        init_weight=torch.from_numpy(np.array(of.weight, np.float32)),
        init_bias=torch.from_numpy(np.array(of.bias, np.float32)),
        module_input_name=read,
        module_output_name=into,
        **options,
    )
