"""A run's torch module as an ONNX graph, compared with the module on batches of all shapes."""

from __future__ import annotations

import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spacelite.backbones.tokenizer import special_ids
from spacelite.errors import SpaceliteError, is_out_of_memory, one_line
from spacelite.export.form import Source
from spacelite.export.model import model_of
from spacelite.lazy import torch
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.export.modeling_spacelite import SpaceliteForSequenceClassification

OPSET = 20
# Of the traced example: the exporter has special cases for sizes of 0 and 1, and no size occurs
# twice, so that none is taken for another.
ROWS, TOKENS = 6, 7
# Weights of more bytes lie in a file beside the graph: protobuf takes 2 GB at most.
LARGEST = 1_900_000_000
TOLERANCE = 1e-4  # of a probability
BATCHES = (1, 2, 33)  # texts
# Loggers of the exporter, which prints a graph whole where it fails.
EXPORTERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "root")
BACKBONE = "backbone/"  # at the beginning of the names of its nodes
# onnxruntime reads it when it is imported; without it, it keeps files of usage data in ~/.cache.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def write_graph(source: Source, path: Path) -> None:
    """Write the graph of a run whose head reads hidden states. Raises SpaceliteError if the
    backbone cannot be translated, or if the graph gives something else than the module."""
    module, inputs = model_of(source), Inputs.of(source)
    weights = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    try:
        program = _translated(module, inputs)
        _tidy(program.model)
        with _quiet():
            program.save(path, external_data=weights > LARGEST)
    except OSError:
        raise
    except Exception as error:  # whatever the exporter raises
        raise _refusal(source, one_line(error, 200)) from error
    _check(source, module, inputs, path)


def _refusal(source: Source, why: str) -> SpaceliteError:
    return SpaceliteError(
        f"{source.run.record.spec.backbone} cannot be translated into an ONNX graph ({why}): "
        "choose another form"
    )


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run's graph."""

    vocabulary: int  # token ids are below
    segments: bool  # whether there are token_type_ids
    windows: bool  # whether there are places
    labels: int  # of ngram_logits; 0 if there are none

    @classmethod
    def of(cls, source: Source) -> Inputs:
        """Those of a run."""
        run, config = source.run, source.predictor.model.model.config
        tokens = source.predictor.tokenize(["a"])
        return cls(
            min(len(source.tokenizer), config.vocab_size),
            tokens.type_ids is not None,
            tokens.windows is not None,
            len(run.record.label_names) if run.head.reads_ids else 0,
        )

    def random(self, mask: Array, token: int | None = None) -> dict[str, Array]:
        """Inputs for an attention mask (rows, n), with random token ids or of one token alone. Of
        texts in windows each has two of the rows, or one if there is a single row."""
        random, (rows, tokens) = np.random.default_rng(0), mask.shape
        ids = random.integers(0, self.vocabulary, mask.shape)
        inputs = {
            "input_ids": ids if token is None else np.full_like(ids, token),
            "attention_mask": mask,
        }
        texts = rows
        if self.segments:
            inputs["token_type_ids"] = np.zeros_like(mask)
        if self.windows:
            texts = max(1, rows // 2)
            each = rows // texts * tokens
            places = np.arange(texts)[:, None] * each + np.arange(each - each // 3)
            places[-1, 1 + each // 2 :] = -1  # a shorter text
            inputs["places"] = places
        if self.labels:
            values = random.normal(size=(texts, self.labels))
            inputs["ngram_logits"] = values.astype(np.float32)
        return inputs

    @property
    def sizes(self) -> dict[str, dict[int, str]]:
        """Which dimensions of the inputs vary, with their names."""
        rows = {0: "rows", 1: "tokens"}
        sizes = {"input_ids": rows, "attention_mask": rows}
        if self.segments:
            sizes["token_type_ids"] = rows
        if self.windows:
            sizes["places"] = {0: "texts", 1: "kept"}
        if self.labels:
            sizes["ngram_logits"] = {0: "texts" if self.windows else "rows"}
        return sizes


def _translated(module: SpaceliteForSequenceClassification, inputs: Inputs) -> Any:
    """The graph of a module, if need be of other implementations of attention and experts, which
    compute the same step by step."""
    backbone: Any = module.backbone
    attention = backbone.config._attn_implementation
    experts = getattr(backbone.config, "_experts_implementation", None)
    try:
        return _traced(module, inputs)
    except Exception as error:  # whatever the exporter raises
        if is_out_of_memory(error):
            raise
    backbone.set_attn_implementation("eager")
    if experts is not None:
        backbone.set_experts_implementation("batched_mm")
    try:
        return _traced(module, inputs)
    finally:
        backbone.set_attn_implementation(attention)
        if experts is not None:
            backbone.set_experts_implementation(experts)


def _traced(module: SpaceliteForSequenceClassification, inputs: Inputs) -> Any:
    class Traced(torch.nn.Module):
        """The module with the inputs and outputs of the graph, in order."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
            places: torch.Tensor | None = None,
            ngram_logits: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, ...]:
            output = self.module(
                input_ids, attention_mask, token_type_ids, places, ngram_logits, output_shares=True
            )
            outputs = (output.logits, output.probabilities, output.shares)
            return tuple(value for value in outputs if value is not None)

    names = ["logits", "probabilities", *(["shares"] if module.additive else [])]
    example = inputs.random(np.ones((ROWS, TOKENS), np.int64))
    dims = {name: torch.export.Dim(name) for of in inputs.sizes.values() for name in of.values()}
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            Traced().eval(),
            kwargs={name: torch.from_numpy(value) for name, value in example.items()},
            input_names=[*example],
            output_names=names,
            dynamic_shapes={
                name: {number: dims[size] for number, size in of.items()}
                for name, of in inputs.sizes.items()
            },
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _tidy(model: Any) -> None:
    """Leave out what the exporter notes for its own developers: source code, and paths of this
    machine. Nodes of the backbone are named after it."""
    from onnx_ir.traversal import RecursiveGraphIterator

    noted: list[Any] = [model, model.graph, *model.graph.inputs, *model.graph.initializers.values()]
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in RecursiveGraphIterator(graph):
            inside = any("module.backbone" in scope for scope in node.metadata_props.values())
            node.name = f"{BACKBONE if inside else 'head/'}{node.name}"
            noted += [node, *node.outputs]
    for thing in noted:
        thing.metadata_props.clear()
        thing.doc_string = None


def quantize_graph(path: Path) -> None:
    """Round the weights of the backbone in a graph to int8, those of each output of a layer in
    steps of their own; the head's stay as they are. Weights have 7 bits, because processors without
    VNNI add pairs of products of 8 bits in 16, where they overflow."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = path.with_name("float32") / path.name  # files of weights lie beside it by their names
    before.parent.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(before.parent / file.name)
    graph = onnx.load(before, load_external_data=False).graph
    # A product with a bias is divided in two first, under another name.
    head = [node.name for node in graph.node if not node.name.startswith(BACKBONE)]
    head += [f"{name}_MatMul" for name in head]
    with _quiet():
        quantize_dynamic(
            before,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=head,
            use_external_data_format=len([*before.parent.iterdir()]) > 1,
        )
    shutil.rmtree(before.parent)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on itself."""
    levels = {logger: logger.level for logger in map(logging.getLogger, EXPORTERS)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _check(
    source: Source, module: SpaceliteForSequenceClassification, inputs: Inputs, path: Path
) -> None:
    """Raise SpaceliteError if the graph gives something else than the module: for batches of one
    text and of several, of one token, of the longest texts, of unknown words, and with padding."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors
        raise _refusal(source, one_line(error, 200)) from error
    longest, special = source.run.record.spec.max_length, special_ids(source.tokenizer)
    padded = np.ones((2, 5), np.int64)
    padded[1, 3:] = 0
    if source.tokenizer.padding_side == "left":
        padded = padded[:, ::-1].copy()
    cases = [(f"{rows} texts", inputs.random(np.ones((rows, 5), np.int64))) for rows in BATCHES]
    cases += [
        ("one token", inputs.random(np.ones((1, 1), np.int64))),
        (f"{longest} tokens", inputs.random(np.ones((1, longest), np.int64))),
        ("unknown words", inputs.random(np.ones((2, 5), np.int64), special.unknown or 0)),
        ("padding", inputs.random(padded)),
    ]
    for what, case in cases:
        try:
            (given,) = session.run(["probabilities"], case)
        except Exception as error:  # as above
            raise _refusal(source, f"with {what}: {one_line(error, 150)}") from error
        with torch.no_grad():
            output = module(**{name: torch.from_numpy(value) for name, value in case.items()})
        difference = float(np.abs(given - output.probabilities.numpy()).max())
        if not difference <= TOLERANCE:
            raise _refusal(source, f"with {what}, probabilities differ by {difference:.1e}")
