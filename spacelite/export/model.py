"""A run as the torch module of `modeling_spacelite.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spacelite.backbones.tokenizer import tokenize
from spacelite.export.form import Source
from spacelite.heads import attention
from spacelite.heads.ngrams import NGrams
from spacelite.heads.space import BIAS
from spacelite.lazy import torch
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.export.modeling_spacelite import SpaceliteForSequenceClassification

KINDS = ("space", "linear", "mlp", "logreg", "additive", "tfidf")
POOLINGS = ("first", "last", "mean", "max", "pooler", "layers")
STORED = ("float32", "float16", "bfloat16", "int8", "int4")
PROBLEMS = {True: "multi_label_classification", False: "single_label_classification"}


def untranslated(run: Run) -> str | None:
    """Why the torch module does not have a run's head; None if it does. It has those of spacelite,
    and not what extensions add."""
    spec = run.record.spec
    if run.head.kind not in KINDS:
        return f"heads of the kind {run.head.kind} are an extension, which it does not know"
    for pooling in run.head.poolings:
        if pooling not in POOLINGS:
            return f"the pooling {pooling} is an extension, which it does not know"
    if spec.dtype not in STORED:
        return f"the number type {spec.dtype} is an extension, which it does not know"
    return None


def blocks_of(run: Run) -> list[tuple[dict[str, Any], dict[str, Array]]]:
    """What a head's logits are the sum of, beside its bias: of each block what the config says, and
    its weights by name."""
    arrays, head = run.parameters, run.head
    blocks: list[tuple[dict[str, Any], dict[str, Array]]] = []
    if head.kind in ("linear", "logreg", "mlp"):
        weight = arrays["classifier.weight"]
        block = {"kind": "linear", "width": weight.shape[1], "pooling": head.poolings[0]}
        weights = {"weight": weight}
        if head.kind == "mlp":
            block["kind"] = "mlp"
            names = ("pre_classifier.weight", "pre_classifier.bias", "classifier.weight")
            weights = {name: arrays[name] for name in names}
        return [(block, weights)]
    if head.kind == "additive":
        for pooling in head.poolings:
            weight = arrays[f"{pooling}.weight"]
            block = {
                "kind": "linear", "width": weight.shape[1], "pooling": pooling, "double": True
            }  # fmt: skip
            blocks.append((block, {"weight": weight}))
    if "concept_spaces" in arrays:
        spaces = arrays["concept_spaces"]
        matrix = spaces.reshape(-1, spaces.shape[2])
        weights = {
            "concept_spaces.weight": matrix,
            "classifier.weight": arrays["classifier.weight"],
        }
        if BIAS in arrays:
            weights["concept_spaces.bias"] = arrays[BIAS].reshape(-1)
        dimensions, width = matrix.shape
        block = {"kind": "space", "width": width, "dimensions": dimensions, "bias": BIAS in arrays}
        blocks.append((block, weights))
    if attention.UNITS in arrays:
        units, queries = (arrays[name] for name in (attention.UNITS, attention.QUERIES))
        width = units.shape[2]
        weights = {
            "units.weight": units.reshape(-1, width),
            "units.bias": arrays[attention.BIAS].reshape(-1),
            "queries.weight": queries.reshape(-1, width),
            "classifier.weight": arrays["classifier.weight"],
        }
        count = len(weights["queries.weight"])
        block = {
            "kind": "attention", "width": width, "queries": count,
            "units": len(weights["units.weight"]) // count,
        }  # fmt: skip
        blocks.append((block, weights))
    if head.reads_ids:
        keys, idf, weight = ngrams_of(run)
        table = NGrams(keys, idf)
        block = {
            "kind": "ngrams", "count": len(keys), "longest": table.longest,
            "sublinear": head.kind != "tfidf",
        }  # fmt: skip
        blocks.append((block, {"keys": keys, "idf": idf, "weight": weight}))
    return blocks


def ngrams_of(run: Run) -> tuple[Array, Array, Array]:
    """The n-grams of a head that reads token ids: keys (M,), idf (M,) and weights (C, M)."""
    arrays = run.parameters
    weight = arrays["classifier.weight" if run.head.kind == "tfidf" else "ngrams.weight"]
    return arrays["ngrams.keys"], arrays["ngrams.idf"], weight


def model_of(source: Source) -> SpaceliteForSequenceClassification:
    """The torch module of a run whose head reads hidden states, with the backbone that the process
    holds in it."""
    from transformers import AutoConfig

    from spacelite.export.modeling_spacelite import (
        SpaceliteConfig,
        SpaceliteForSequenceClassification,
    )

    run, predictor = source.run, source.predictor
    spec, reduction, names = run.record.spec, run.reduction, run.record.label_names
    of_backbone = AutoConfig.from_pretrained(predictor.files.folder, local_files_only=True)
    (architecture,) = (of_backbone.architectures or [""])[:1]
    sample = tokenize(predictor.files, ["a"], **spec.tokenizing, tokenizer=source.tokenizer)
    blocks = blocks_of(run)
    config = SpaceliteConfig(
        backbone=of_backbone.to_dict(),
        backbone_class=architecture if architecture.endswith("EncoderModel") else None,
        layer=spec.layer,
        stored=spec.dtype,
        reduced=None if reduction is None else [reduction.width, reduction.dimensions],
        segments=sample.type_ids is not None,
        padded=spec.padding == "max_length",
        skip_first=spec.skip_first,
        blocks=[block for block, _ in blocks],
        problem_type=PROBLEMS[run.record.task is MULTI_LABEL],
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    model: SpaceliteForSequenceClassification
    model = SpaceliteForSequenceClassification(config, predictor.model.model)
    weights = {"bias": run.parameters["classifier.bias"]}
    for number, (_, of_block) in enumerate(blocks):
        weights |= {f"blocks.{number}.{name}": value for name, value in of_block.items()}
    if reduction is not None:
        weights |= {"reduction.mean": reduction.mean, "reduction.axes": reduction.axes}
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    wrong = model.load_state_dict(tensors, strict=False).unexpected_keys
    if wrong:
        raise ValueError(f"the module lacks {wrong}")
    model.eval().requires_grad_(False)
    return model
