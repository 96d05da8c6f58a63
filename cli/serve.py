"""spacelite serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.text import Text

import spacelite
from spacelite.errors import SpaceliteError
from spacelite.files import bytes_of

from . import INTERRUPTED, console
from .options import CACHE_DIR


def serve(
    run: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_body: str = "1MB",
    max_texts: int = 1000,
    max_characters: int = 100_000,
    queue: int = 2000,
    timeout: float = 30.0,
    read_timeout: float = 10.0,
    backbone: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Answer HTTP requests with the predictions of a run, or of an export, until Ctrl-C.

    POST /predict classifies {"text": ...} or {"texts": [...]}; GET / is a page for people, and
    GET /docs lists all routes. There is no authentication: whoever reaches the port may use it.

    Options:
        run: A run's id, a part of it that no other run has, its name, or its folder; or a folder of
            export --to onnx.
        host: Address to listen at; 0.0.0.0 for those of all networks.
        port: Port to listen at; 0 for any that is free.
        max_body SIZE: The largest body of a request.
        max_texts: The most texts of a request.
        max_characters: The most characters of a text.
        queue: The most texts that wait, of all requests; others are told to try again later.
        timeout: Seconds until a request is answered, or told to try again later.
        read_timeout: Seconds that a client may take to send a request, or to read the answer.
        as_json: Print the URL and the run as one JSON document, once the port is open.
    """
    from spacelite.export import serve as service

    body = bytes_of(max_body)
    if not body:
        raise SpaceliteError(f"--max-body {max_body}: give a size such as 500kB or 2MB")
    limits = service.Limits(body, max_texts, max_characters, queue, timeout, read_timeout)
    model: service.Model
    if (Path(run) / "classifier.json").exists():
        of_runs = {"--backbone": backbone, "--tokens-per-batch": tokens_per_batch}
        for name, value in {**of_runs, "--device": None if device == "auto" else device}.items():
            if value is not None:
                raise SpaceliteError(f"{name} {value} has no effect on an export: leave it out")
        model = service.ExportModel(Path(run))
    else:
        loaded = spacelite.load_run(run, cache_dir)
        model = service.RunModel(
            loaded.run,
            loaded.decides,
            backbone=backbone,
            device=device,
            tokens_per_batch=tokens_per_batch,
        )
    name = model.about["run"]

    def listening(url: str) -> None:
        if as_json:
            console.print_json({"url": url, "run": name})
            sys.stdout.flush()
        else:
            console.say(f"{url} serves run {name}; Ctrl-C ends it")

    try:
        service.serve(model, host=host, port=port, limits=limits, listening=listening)
    except KeyboardInterrupt:
        console.end(Text("interrupted"))
        # An orderly exit would abort in the middle of a forward pass.
        os._exit(INTERRUPTED)
