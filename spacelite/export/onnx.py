"""The form onnx: files that `classify.py` beside them reads, without torch and spacelite."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from spacelite import files, heads, npz
from spacelite.backbones.tokenizer import special_ids, tokenize
from spacelite.export.form import Form, Source
from spacelite.export.graph import quantize_graph, write_graph
from spacelite.export.model import ngrams_of, untranslated
from spacelite.heads.ngrams import NGrams
from spacelite.runs.store import Run, version
from spacelite.types import Array
from spacelite.visible import visible_name

FORMAT = 1  # of classifier.json
RUNNER, MODEL, SETTINGS = "classify.py", "model.onnx", "classifier.json"
NEEDED, WITH_GRAPH = ("numpy>=1.26", "tokenizers>=0.20"), ("onnxruntime>=1.20",)
DOCKERFILE = """\
FROM python:3.12-slim
ENV ORT_DISABLE_TELEMETRY=1
WORKDIR /classifier
COPY requirements.txt .
RUN PIP_NO_CACHE_DIR=1 pip install -r requirements.txt
COPY . .
USER nobody
ENTRYPOINT ["python", "classify.py"]
"""


class OnnxForm(Form):
    """A graph in model.onnx, unless the head reads token ids alone, and what turns texts into its
    inputs."""

    name = "onnx"
    extra = "export"
    library = "onnx"
    modules = ("onnx", "onnxscript", "onnxruntime")
    quantizations = ("int8",)

    @override
    def refusal(self, run: Run) -> str | None:
        return untranslated(run)

    @override
    def require(self, run: Run) -> None:
        if not run.head.reads_only_ids:
            super().require(run)

    @override
    def write(self, source: Source, folder: Path) -> list[str]:
        if source.has_backbone:
            write_graph(source, folder / MODEL)
        (folder / "tokenizer.json").write_text(tokenizer_json(source), "utf-8")
        npz.write(folder / "arrays.npz", ngram_arrays(source.run))
        write_sealed(folder, classifier_json(source))
        shutil.copyfile(Path(__file__).with_name(RUNNER), folder / RUNNER)
        needed = [*NEEDED, *(WITH_GRAPH if source.has_backbone else [])]
        (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needed))
        (folder / "Dockerfile").write_text(DOCKERFILE)
        return []

    @override
    def quantize(self, folder: Path, to: str) -> None:
        quantize_graph(folder / MODEL)
        write_sealed(folder, files.read_json(folder / SETTINGS))

    @override
    def use(self, run: Run, name: str, folder: Path) -> str:
        quoted = shlex.quote(visible_name(name))
        there = f"$(hf download {quoted})" if "/" in name else quoted  # a repository
        return (
            f'```bash\ncd {there}\npip install -r requirements.txt\npython {RUNNER} "a text"\n```'
        )

    @override
    def probabilities(self, source: Source, folder: Path, texts: Sequence[str]) -> Array:
        runner = loaded(folder / RUNNER)
        given: Array = runner.Classifier(folder).probabilities(texts)
        return given


def loaded(path: Path) -> Any:
    """A Python file as a module, which no other import finds."""
    spec = importlib.util.spec_from_file_location(f"spacelite_exported_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - the file was written
    module = importlib.util.module_from_spec(spec)
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writing
    return module


def write_sealed(folder: Path, content: dict[str, Any]) -> None:
    """Write classifier.json, with the size and the CRC-32 of each file in the folder that it
    needs, and a checksum of its own. Raises OSError."""
    from spacelite.export.classify import crc32

    needed = sorted([*folder.glob(f"{MODEL}*"), folder / "arrays.npz", folder / "tokenizer.json"])
    sealed = {path.name: {"bytes": path.stat().st_size, "crc32": crc32(path)} for path in needed}
    files.write_json(folder / SETTINGS, {**content, "files": sealed})


def tokenizer_json(source: Source) -> str:
    """The backbone's tokenizer, without truncation and padding."""
    from tokenizers import Tokenizer

    alone = Tokenizer.from_str(source.tokenizer.backend_tokenizer.to_str())
    alone.no_truncation()
    alone.no_padding()
    return str(alone.to_str(pretty=True))


def ngram_arrays(run: Run) -> dict[str, Array]:
    """The n-grams that a head reads, by the names of arrays.npz; empty if it reads none."""
    if not run.head.reads_ids:
        return {}
    keys, idf, weight = ngrams_of(run)
    return {"ngrams.keys": keys, "ngrams.idf": idf, "ngrams.weight": weight}


def classifier_json(source: Source) -> dict[str, Any]:
    """What turns texts into inputs of the graph, and its outputs into labels (docs/formats.md)."""
    run, tokenizer = source.run, source.tokenizer
    record, spec = run.record, run.record.spec
    files_ = source.predictor.files
    kind, special = heads.kind(run.head.kind), special_ids(tokenizer)
    sample = tokenize(files_, ["a"], **spec.tokenizing, tokenizer=tokenizer)
    windows = None
    if sample.windows is not None:
        cut = sample.windows
        windows = {
            "size": cut.size, "stride": cut.stride, "before": cut.before, "after": cut.after
        }  # fmt: skip
    ngrams = None
    if run.head.reads_ids:
        table = NGrams.from_head(run.parameters)
        ngrams = {"longest": table.longest, "sublinear": run.head.kind != "tfidf"}
    return {
        "format": FORMAT,
        "model": MODEL if source.has_backbone else None,
        "labels": list(record.label_names),
        "task": record.task.name.replace("-", "_"),
        "thresholds": record.thresholds,
        "max_length": spec.max_length,
        "truncation_side": tokenizer.truncation_side,
        "padding": spec.padding,
        "pad": {
            "id": tokenizer.pad_token_id,
            "type_id": tokenizer.pad_token_type_id,
            "token": tokenizer.pad_token,
            "side": tokenizer.padding_side,
        },
        "prefix": spec.prefix,
        "windows": windows,
        "skip_first": spec.skip_first,
        "has_segments": sample.type_ids is not None,
        "vocabulary": len(tokenizer),
        "additive": kind.not_additive(run.head) is None,
        "bias": kind.bias(run.parameters).astype(np.float64).tolist(),
        "ngrams": ngrams,
        "special_ids": sorted(special.others),
        "unknown_id": special.unknown,
        "backbone": {
            "name": spec.backbone,
            "revision": spec.revision,
            "version": spec.backbone_version,
        },
        "run": {"id": run.id, "created": record.created, "spacelite": version("spacelite")},
        "text_column": record.text_column,
    }
