"""The form `transformers`: a run as a model for text classification of that library.

Where one of its own classes computes the same, that class is taken, and no code is trusted: most
have a layer and an activation before their classifier, which are the head's where it has the same,
and set so that they change nothing where it has none. Otherwise the folder holds the code of the
model, `modeling_spacelite.py`, which is run only where it is trusted.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from spacelite import files
from spacelite.backbones.model import quietly
from spacelite.backbones.tokenizer import load_tokenizer
from spacelite.errors import SpaceliteError
from spacelite.export import layers
from spacelite.export.form import TOLERANCE, Form, Source, largest
from spacelite.export.layers import Linear
from spacelite.export.model import PROBLEMS, model_of, untranslated
from spacelite.lazy import torch
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL
from spacelite.types import Array

CODE = "modeling_spacelite.py"
OTHERWISE = "take the form onnx"
WARNING = (
    "Loading it with trust_remote_code=True runs modeling_spacelite.py of this folder, with all "
    "that you may do on your machine: read it first (it needs torch and transformers alone), and "
    "on the hub name the revision that you have read."
)
# What a vector is multiplied by before a tanh that is to change nothing: tanh(x) = x up to x^3 / 3.
# A power of two, so that no other rounding comes in.
SMALL = 2.0**-12


@dataclass(frozen=True)
class Stock:
    """A class of transformers that classifies by a layer, an activation and a classifier on one
    vector per text.

    Attributes:
        name: The class.
        dense, classifier: The names of the two layers.
        activation: Between them; None if its config names it.
        setting: The name of the activation in the config.
        pooling: Whose vector it reads.
        settings: What else its config has to say.
    """

    name: str
    dense: str
    classifier: str
    activation: str | None
    setting: str = ""
    pooling: str = "first"
    settings: tuple[tuple[str, Any], ...] = ()


ROBERTA = ("classifier.dense", "classifier.out_proj", "tanh")
# Types of models -> their class. XLNet pads on the left, and its classification token comes last.
STOCK: dict[str, Stock] = {
    "albert": Stock("AlbertForSequenceClassification", "albert.pooler", "classifier", "tanh"),
    "bert": Stock("BertForSequenceClassification", "bert.pooler.dense", "classifier", "tanh"),
    "camembert": Stock("CamembertForSequenceClassification", *ROBERTA),
    "deberta": Stock(
        "DebertaForSequenceClassification", "pooler.dense", "classifier", None, "pooler_hidden_act"
    ),
    "deberta-v2": Stock(
        "DebertaV2ForSequenceClassification", "pooler.dense", "classifier", None,
        "pooler_hidden_act",
    ),
    "distilbert": Stock(
        "DistilBertForSequenceClassification", "pre_classifier", "classifier", "relu"
    ),
    "electra": Stock(
        "ElectraForSequenceClassification", "classifier.dense", "classifier.out_proj", "gelu"
    ),
    "mpnet": Stock("MPNetForSequenceClassification", *ROBERTA),
    "roberta": Stock("RobertaForSequenceClassification", *ROBERTA),
    "xlm-roberta": Stock("XLMRobertaForSequenceClassification", *ROBERTA),
    "xlnet": Stock(
        "XLNetForSequenceClassification", "sequence_summary.summary", "logits_proj", None,
        "summary_activation", "last",
        # Without its memories of earlier texts, which pipelines cannot take apart.
        (
            ("summary_type", "last"), ("summary_use_proj", True),
            ("summary_proj_to_labels", False), ("use_mems_eval", False),
        ),
    ),
}  # fmt: skip
ON_A_VECTOR = ("linear", "mlp", "logreg")  # kinds of heads


def stock(run: Run, source: Source) -> tuple[Stock, Linear, Linear] | None:
    """The class of transformers that computes the same as a run's head, with the two maps that it
    consists of there; None if there is none."""
    spec, head = run.record.spec, run.head
    if head.kind not in ON_A_VECTOR or spec.layer != -1 or spec.skip_first:
        return None
    model = source.predictor.model.model
    of_model = STOCK.get(model.config.model_type)
    left = source.tokenizer.padding_side == "left"
    if of_model is None or (of_model.pooling == "last") != left:
        return None
    maps = layers.pooled(run)
    (pooling,) = head.poolings
    if pooling == "pooler" and of_model.activation == "tanh" and len(maps) == 1:
        dense = model.pooler if of_model.dense == "albert.pooler" else model.pooler.dense
        of_pooler = Linear(dense.weight.numpy(), dense.bias.numpy(), "tanh")
        return of_model, of_pooler, maps[0]
    if pooling != of_model.pooling:
        return None
    if len(maps) == 2:
        first, last = maps
        fits = of_model.activation in (None, first.activation)
        return (of_model, first, last) if fits else None
    through = unchanged(of_model.activation, maps[0], model)
    return None if through is None else (of_model, *through)


def unchanged(activation: str | None, last: Linear, model: Any) -> tuple[Linear, Linear] | None:
    """A layer that its activation leaves as it is, and the map after it that takes back what the
    layer does: for tanh, near 0, where it is linear; for ReLU and GELU, above all values that the
    layer normalisation can give."""
    width = last.weight.shape[1]
    none, identity = np.zeros(width, np.float32), np.eye(width, dtype=np.float32)
    if activation is None:
        return Linear(identity, none, "linear"), last
    if activation == "tanh":
        return Linear(SMALL * identity, none, "tanh"), Linear(last.weight / SMALL, last.bias)
    if (bound := largest_values(model)) is None:
        return None
    shift = bound + 8  # from where on GELU is the identity in float32
    bias = last.bias - last.weight.astype(np.float64) @ shift
    return Linear(identity, shift, activation), Linear(last.weight, bias.astype(np.float32))


def largest_values(model: Any) -> Array | None:
    """The largest values that the last layer normalisation of a model can give, (d,); None if that
    is not the last thing that it does."""
    from torch import nn

    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    if not norms or norms[-1].weight is None:
        return None
    weight, bias = (value.detach().numpy() for value in (norms[-1].weight, norms[-1].bias))
    return np.asarray(np.abs(weight) * math.sqrt(len(weight)) + np.abs(bias), np.float32)


def built(found: tuple[Stock, Linear, Linear], source: Source) -> Any:
    """A model of a class of transformers, with all of its weights; None if the class has others
    than the backbone's and those of the two maps."""
    import transformers

    of_model, dense, classifier = found
    backbone = source.predictor.model.model
    config = type(backbone.config)(**backbone.config.to_dict())
    for name, value in of_model.settings:
        setattr(config, name, value)
    if of_model.setting:
        setattr(config, of_model.setting, dense.activation)
    describe(config, source.run)
    model = getattr(transformers, of_model.name)(config).eval().requires_grad_(False)
    weights = {
        f"{model.base_model_prefix}.{name}": value for name, value in backbone.state_dict().items()
    }
    for name, of in ((of_model.dense, dense), (of_model.classifier, classifier)):
        weights[f"{name}.weight"] = torch.from_numpy(np.array(of.weight, np.float32))
        weights[f"{name}.bias"] = torch.from_numpy(np.array(of.bias, np.float32))
    known = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in known and known[name].shape == value.shape
    }
    if fitting.keys() != known.keys():
        return None
    model.load_state_dict(fitting)
    return model


def describe(config: Any, run: Run) -> None:
    """Write labels and task into the config of a model."""
    config.id2label = dict(enumerate(run.record.label_names))
    config.label2id = {label: number for number, label in config.id2label.items()}
    config.problem_type = PROBLEMS[run.record.task is MULTI_LABEL]
    if run.record.thresholds:
        config.thresholds = run.record.thresholds


def of_thresholds(run: Run) -> list[str]:
    """What to know of the decision thresholds of a run, which no library applies, if it has any."""
    if not run.record.thresholds:
        return []
    return [
        "its decision thresholds are in config.json as thresholds: apply them to the probabilities "
        "yourself"
    ]


def save_tokenizer(source: Source, folder: Path) -> None:
    """Save the backbone's tokenizer, which cuts texts off where the run does. Raises OSError."""
    tokenizer = load_tokenizer(source.predictor.files)  # not the one that others use too
    tokenizer.model_max_length = source.run.record.spec.max_length
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)


def unlike_tokenizers(run: Run) -> str | None:
    """What a run does with texts that a tokenizer's own call does not; None if nothing."""
    spec = run.record.spec
    if spec.stride is not None:
        return "it runs long texts in windows, and tokenizers cut them off"
    return (
        "it counts padding as tokens, and other programs do not" if spec.padding != "none" else None
    )


class TransformersForm(Form):
    """A run as a model of transformers."""

    name = "transformers"
    library = "transformers"

    @override
    def refusal(self, run: Run) -> str | None:
        why = untranslated(run) or unlike_tokenizers(run)
        if run.record.spec.prefix:
            why = "it reads texts with a prefix, which pipelines do not add"
        if run.head.reads_only_ids:
            why = "its head reads token ids alone, and there is no model to load"
        return None if why is None else f"{why}: {OTHERWISE}"

    @override
    def write(self, source: Source, folder: Path) -> list[str]:
        with quietly():
            notes = self._stock(source, folder) or self._own(source, folder)
        return [*notes, *of_thresholds(source.run)]

    def _stock(self, source: Source, folder: Path) -> list[str]:
        """Write a class of transformers; return nothing, and leave nothing, if none is exact."""
        found = stock(source.run, source)
        model = None if found is None else built(found, source)
        if found is None or model is None:
            return []
        save_tokenizer(source, folder)
        model.save_pretrained(folder)
        given = self.probabilities(source, folder, source.texts)
        if largest(given, source.expected) <= TOLERANCE:
            return [f"it is a {found[0].name}, a class of transformers: no code has to be trusted"]
        for path in folder.iterdir():
            files.delete(path)
        return []

    def _own(self, source: Source, folder: Path) -> list[str]:
        model = model_of(source)
        module = CODE.removesuffix(".py")
        describe(model.config, source.run)
        model.config.backbone.pop("_name_or_path", None)  # a folder of this machine
        model.config.auto_map = {
            "AutoConfig": f"{module}.{type(model.config).__name__}",
            "AutoModelForSequenceClassification": f"{module}.{type(model).__name__}",
        }
        save_tokenizer(source, folder)
        model.save_pretrained(folder)
        shutil.copyfile(Path(__file__).with_name(CODE), folder / CODE)
        dtype = source.run.record.spec.dtype
        why = "transformers has no class that computes what this run does"
        if stock(source.run, source) is not None:
            why = (
                f"no class of transformers rounds hidden states to {dtype}, as they were stored: "
                "embedded with dtype=float32, it would need no code"
            )
        return [f"{why}. {WARNING}"]

    @override
    def use(self, run: Run, name: str, folder: Path) -> str:
        own = (folder / CODE).exists()
        more = ", trust_remote_code=True" if own else ""
        code = (
            "```python\n"
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", {json.dumps(name)}{more})\n'
            'print(classify("a text", truncation=True, top_k=None))  # all labels\n'
            "```"
        )
        return f"{code}\n\n**Trust.** {WARNING}" if own else code

    @override
    def probabilities(self, source: Source, folder: Path, texts: Sequence[str]) -> Array:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        kind: Any = AutoModelForSequenceClassification
        if (folder / CODE).exists():  # the same code, of which this library's copy is run
            from spacelite.export.modeling_spacelite import SpaceliteForSequenceClassification

            kind = SpaceliteForSequenceClassification
        with quietly():
            model, info = kind.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            # With the config, so that nothing asks whether its code is trusted.
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=model.config, local_files_only=True, trust_remote_code=False
            )
        if lacking := [*info["missing_keys"], *info["mismatched_keys"]]:
            raise SpaceliteError(f"the weights lack {', '.join(map(str, sorted(lacking)[:4]))}")
        model.eval()
        logits = []
        for text in texts:
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                logits.append(model(**inputs).logits[0].double().numpy())
        probabilities: Array = source.run.record.task.probabilities(np.stack(logits))
        return probabilities
