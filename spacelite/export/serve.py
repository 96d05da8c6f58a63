"""A trained run as an HTTP service.

Requests -> a bounded queue -> one thread that classifies what waits, some texts of each request in
turn -> JSON. Neither texts nor anything made of them is ever logged.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import functools
import hashlib
import ipaddress
import json
import logging
import math
import re
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from spacelite import files, heads
from spacelite.data.columns import text_problem
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.export import classify
from spacelite.inference import explanation
from spacelite.inference.prediction import Predicted, Predictor
from spacelite.metrics.thresholds import in_order
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run, version
from spacelite.settings import positive, require, whole_number
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL, Task
from spacelite.types import Array
from spacelite.visible import visible_name

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
    raise SpaceliteError(
        f"serving needs the package {error.name}: pip install 'spacelite[serve]'"
    ) from error

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
BATCH_TEXTS, BATCH_CHARACTERS = 32, 100_000  # with which a batch is full
TURN = 8  # texts of a request in a batch, before those of the next one
LONGEST_WAIT = 60  # seconds that clients are told to wait at most
CONNECTIONS = 200  # open at once; macOS lets a process open 256 files
LINGER = 0.5  # seconds in which requests that are on their way arrive before the end
LEAST_READ = 65_536  # bytes that a client has to read of its answer in `read_timeout`
STOPPING = (signal.SIGTERM, signal.SIGINT)
FIELDS = ("text", "texts", "explain", "min_probability", "threshold")
TASKS: dict[str, Task] = {"single_label": SINGLE_LABEL, "multi_label": MULTI_LABEL}  # of exports
QUIET = ("uvicorn.error", "uvicorn.access", "asyncio")  # their tracebacks may quote a request


@dataclass(frozen=True)
class Limits:
    """What the service takes, and how long it waits.

    Attributes:
        max_body: Bytes of a request's body.
        max_texts: Texts of a request.
        max_characters: Characters of a text.
        queue: Texts that wait to be classified, of all requests.
        timeout: Seconds until a request that was read has its answer.
        read_timeout: Seconds that a client may take to send a request, or to read its answer.
    """

    max_body: int = 1_000_000
    max_texts: int = 1000
    max_characters: int = 100_000
    queue: int = 2000
    timeout: float = 30.0
    read_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_body", "max_texts", "max_characters", "queue"):
            require(name, getattr(self, name), whole_number(1))
        for name in ("timeout", "read_timeout"):
            require(name, getattr(self, name), positive)
        if self.queue < self.max_texts:
            raise SpaceliteError(
                f"queue={self.queue}: a request may have max_texts={self.max_texts}, which would "
                "never fit: give a larger queue, or fewer texts",
                ["queue", "max_texts"],
            )


# What is served.


@dataclass(frozen=True)
class Decision:
    """How labels are decided by probabilities; numbers are what they are."""

    task: Task
    labels: Sequence[str]
    thresholds: dict[str, float]
    min_probability: float | None = None

    def of(self, probabilities: Array) -> list[dict[str, Any]]:
        """The label of each of N texts, or its labels, from probabilities (N, C)."""
        limits = in_order(self.thresholds, self.task, self.labels)
        given = self.task.given(probabilities, self.labels, self.min_probability, limits)
        return [self.task.as_json(names) for names in given]

    def chances(self, probabilities: Array) -> dict[str, Any]:
        """The probability of each label of a text, from probabilities (C,); {} of a number."""
        if not self.task.has_probabilities:
            return {}
        return {"probabilities": dict(zip(self.labels, probabilities.tolist(), strict=True))}


class Model(Protocol):
    """What is served. Its methods but `decision` are called by one thread alone.

    Attributes:
        about: What `GET /labels` answers.
        unexplained: Why predictions cannot be explained; "" if they can.
    """

    about: dict[str, Any]
    unexplained: str

    def load(self) -> None:
        """Load all that predictions need."""

    def decision(self, threshold: str | None, min_probability: Any) -> Decision:
        """How to decide, as `predict` takes these two. Raises SpaceliteError."""

    def predict(self, texts: Sequence[str], before: int = 0) -> Predicted:
        """Classify N texts; `before` texts came before, for messages. Raises SpaceliteError."""

    def explain(self, text: str) -> dict[str, Any]:
        """Each word's share in each label's logit, as `explain` shows it."""


class RunModel:
    """A run and its backbone.

    Args:
        run: The run.
        decides: Its thresholds and minimum probability, as `TrainedRun.decides` gives them.
        backbone: Folder of its backbone, if that was a local one.
        device: Device of the backbone.
        tokens_per_batch: Maximum tokens per forward pass.

    Raises:
        SpaceliteError: The backbone is not found, or not the run's.
    """

    def __init__(
        self,
        run: Run,
        decides: Callable[[str | None, float | None], tuple[RunRecord, float | None]],
        *,
        backbone: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
    ) -> None:
        if run.record.spec.pairs:
            raise SpaceliteError(
                f"run {run.id} reads pairs of texts, and the service takes single ones: classify "
                "pairs with predict"
            )
        self._decides = decides
        self._predictor = Predictor(run, backbone, device=device, tokens_per_batch=tokens_per_batch)
        record = run.record
        reason = heads.kind(run.head.kind).not_additive(run.head)
        self.unexplained = "" if reason is None else f"run {run.id} cannot be explained: {reason}"
        self.about: dict[str, Any] = {
            "labels": list(record.label_names),
            "task": record.task.name,
            "thresholds": record.thresholds,
            "run": run.id,
            "name": run.name,
            "head": record.system,
            "trained_on": record.spec.dataset,
            "backbone": record.spec.backbone,
            "backbone_version": record.spec.backbone_version,
            "max_length": None if record.spec.stride is not None else record.spec.max_length,
            "explains": reason is None,
        }

    def load(self) -> None:
        """Load the head, the tokenizer and the backbone, and what the first prediction imports."""
        self._predictor.load()
        with contextlib.suppress(SpaceliteError):  # the tokenizer may know no such token
            self._predictor.predict(["a"])

    def decision(self, threshold: str | None, min_probability: Any) -> Decision:
        """As `predict` decides."""
        record, minimum = self._decides(threshold, min_probability)
        return Decision(record.task, record.label_names, record.thresholds, minimum)

    def predict(self, texts: Sequence[str], before: int = 0) -> Predicted:
        """Classify N texts."""
        return self._predictor.predict(texts, before=before)

    def explain(self, text: str) -> dict[str, Any]:
        """Each word's share in each label's logit."""
        tokens = self._predictor.tokenize([text])
        ((_, found),) = explanation.explain_tokens(self._predictor, [text], tokens)
        words = [(word.text, word.special, word.unknown) for word in found.words]
        values = found.shares, found.bias_shown, found.logits_shown
        return explained(found.task, found.labels, words, *values)


class ExportModel:
    """A folder of the form `onnx`. This package's own `classify.py` reads its files: the program in
    the folder is not run.

    Raises:
        SpaceliteError: It is no such folder, or one of its files is not as it was exported.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with _classifying():
            settings = classify.sealed(folder)
        self._task = TASKS[settings["task"]]
        self._labels, self._thresholds = list(settings["labels"]), settings["thresholds"]
        run, backbone, additive = (settings[name] for name in ("run", "backbone", "additive"))
        self.about: dict[str, Any] = {
            "labels": self._labels,
            "task": self._task.name,
            "thresholds": self._thresholds,
            "run": run["id"],
            "name": None,
            "head": None,
            "trained_on": None,
            "backbone": backbone["name"],
            "backbone_version": backbone["version"],
            "max_length": None if settings["windows"] else settings["max_length"],
            "explains": additive,
        }
        self.unexplained = (
            "" if additive else f"{folder} cannot explain: its logits are not a sum over words"
        )

    def load(self) -> None:
        """Load the graph and the tokenizer."""
        with _classifying():
            self._classifier = classify.Classifier(self._folder)

    def decision(self, threshold: str | None, min_probability: Any) -> Decision:
        """As `predict` decides, by the thresholds in the folder."""
        if threshold is not None:
            raise SpaceliteError(
                f"threshold={threshold}: an export has no validation texts to choose thresholds "
                "on: serve the run itself, or give min_probability",
                ["threshold", "min_probability"],
            )
        return Decision(self._task, self._labels, self._thresholds, min_probability)

    def predict(self, texts: Sequence[str], before: int = 0) -> Predicted:
        """Classify N texts."""
        with _classifying(before):
            found, cut_off = self._classifier.predict_with_cuts(texts)
        return Predicted(
            np.array([[*one["probabilities"].values()] for one in found]),
            np.array([one["unknown"] for one in found]),
            np.array(cut_off),
        )

    def explain(self, text: str) -> dict[str, Any]:
        """Each word's share in each label's logit."""
        with _classifying():
            found = self._classifier.explain(text)
        words = [(word["text"], word["special"], word["unknown"]) for word in found["words"]]
        shares = np.array([word["contributions"] for word in found["words"]])
        bias, logits = np.array(found["bias"]), np.array(found["logits"])
        centred = map(self._task.centred, (shares, bias, logits))
        return explained(self._task, self._labels, words, *centred)


@contextlib.contextmanager
def _classifying(before: int = 0) -> Iterator[None]:
    """What classify.py raises, as SpaceliteError; `before` texts came before those that it has."""
    try:
        yield
    except classify.ClassifierError as error:
        message = re.sub(r"^text (\d+)", lambda match: f"text {int(match[1]) + before}", str(error))
        raise SpaceliteError(message) from error


def explained(
    task: Task,
    labels: Sequence[str],
    words: Sequence[tuple[str, bool, bool]],
    shares: Array,
    bias: Array,
    logits: Array,
) -> dict[str, Any]:
    """An explanation as the service answers it: of each of W words what is written, whether it is
    a special token and whether it is unknown, with shares (W, C); bias and logits (C,)."""

    def by_label(values: Array) -> dict[str, float]:
        return dict(zip(labels, values.tolist(), strict=True))

    return {
        "words": [
            {"text": text, "special": special, "unknown": unknown, "shares": by_label(row)}
            for (text, special, unknown), row in zip(words, shares, strict=True)
        ],
        "bias": by_label(bias),
        "logits" if task.has_probabilities else "prediction": by_label(logits),
    }


# The queue, and the thread that empties it.


@dataclass(frozen=True)
class Answer:
    """What is predicted for one text."""

    probabilities: Array  # of each label, (C,)
    unknown: float
    truncated: bool
    explanation: dict[str, Any] | None


@dataclass(eq=False)
class Job:
    """The texts of a request, of which the first `taken` are or were in a batch."""

    texts: list[str]
    explain: bool
    answered: Future[list[Answer]] = field(default_factory=Future)
    answers: list[Answer] = field(default_factory=list)  # of the texts that were classified
    taken: int = 0

    @property
    def rest(self) -> int:
        """How many texts wait; none of a request that was given up, or has failed."""
        return 0 if self.answered.done() else len(self.texts) - self.taken

    def end(self, error: Exception | None = None) -> None:
        """Hand over the answers, or what went wrong, unless the request was given up."""
        if self.answered.done() or not self.answered.set_running_or_notify_cancel():
            return
        if error is None:
            self.answered.set_result(self.answers)
        else:
            self.answered.set_exception(error)


class QueueFullError(Exception):
    """There is no room for a request's texts; `seconds` until there may be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Worker:
    """Loads a model, then classifies what waits. `failed` is called if it cannot be loaded."""

    def __init__(self, model: Model, limits: Limits, failed: Callable[[], None]) -> None:
        self._model, self._limits, self._failed = model, limits, failed
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._seconds_per_text = 0.01
        self.ready = False
        self.problem: Exception | None = None  # why it could not be loaded
        self._thread = threading.Thread(target=self._work, name="classifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Wait until all that was accepted is answered, and end the thread."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        with self._changed:
            return sum(job.rest for job in self._jobs)

    def submit(self, texts: list[str], explain: bool) -> Future[list[Answer]]:
        """Queue the texts of a request. Raises QueueFullError."""
        job = Job(texts, explain)
        with self._changed:
            waiting = sum(other.rest for other in self._jobs)
            if waiting + len(texts) > self._limits.queue:
                seconds = math.ceil(waiting * self._seconds_per_text)
                raise QueueFullError(min(max(seconds, 1), LONGEST_WAIT))
            if self.problem is not None:
                raise self.problem
            self._jobs.append(job)
            self._changed.notify()
        return job.answered

    def _work(self) -> None:
        started = time.monotonic()
        try:
            self._model.load()
        except Exception as error:  # whatever it is, nothing can be served
            with self._changed:
                self.problem = error
                for job in self._jobs:
                    job.end(error)
            self._failed()
            return
        self.ready = True
        log.info("ready after %.1f s", time.monotonic() - started)
        while (batch := self._next()) is not None:
            if batch:
                started = time.monotonic()
                self._classify(batch)
                seconds = (time.monotonic() - started) / len(batch)
                self._seconds_per_text += 0.1 * (seconds - self._seconds_per_text)

    def _next(self) -> list[tuple[Job, str]] | None:
        """The texts of the next batch, each with its job; None at the end."""
        batch: list[tuple[Job, str]] = []
        characters = 0
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._ends)
            if not self._jobs:
                return None
            while self._jobs and len(batch) < BATCH_TEXTS and characters < BATCH_CHARACTERS:
                job = self._jobs.popleft()
                for _ in range(min(TURN, job.rest, BATCH_TEXTS - len(batch))):
                    text = job.texts[job.taken]
                    batch.append((job, text))
                    job.taken += 1
                    characters += len(text)
                    if characters >= BATCH_CHARACTERS:
                        break
                if job.rest:
                    self._jobs.append(job)
        return batch

    def _classify(self, batch: Sequence[tuple[Job, str]]) -> None:
        """Answer the texts of a batch. What goes wrong with one fails its own job alone."""
        jobs = list(dict.fromkeys(job for job, _ in batch))
        try:
            answers = self._answers(batch, before=len(jobs[0].answers) if len(jobs) == 1 else 0)
        except Exception as error:  # of any library below
            for job in jobs:
                if len(jobs) == 1:
                    job.end(error)
                else:
                    self._classify([pair for pair in batch if pair[0] is job])
            return
        for (job, _), answer in zip(batch, answers, strict=True):
            job.answers.append(answer)
        for job in jobs:
            if len(job.answers) == len(job.texts):
                job.end()

    def _answers(self, batch: Sequence[tuple[Job, str]], before: int) -> list[Answer]:
        predicted = self._model.predict([text for _, text in batch], before)
        return [
            Answer(
                probabilities,
                float(unknown),
                bool(cut_off),
                self._model.explain(text) if job.explain else None,
            )
            for (job, text), probabilities, unknown, cut_off in zip(
                batch, predicted.probabilities, predicted.unknown, predicted.cut_off, strict=True
            )
        ]


# Requests.


@dataclass(frozen=True)
class Question:
    """What a request asks."""

    texts: list[str]
    explain: bool
    min_probability: float | None
    threshold: str | None


def question(body: bytes, limits: Limits) -> Question:
    """Read the body of a request. Raises HTTPException with what is wrong with it."""

    def require(good: bool, problem: str, status: int = 400) -> None:
        if not good:
            raise HTTPException(status, problem)

    try:
        content = json.loads(
            body.decode("utf-8"), parse_constant=_not_finite, object_pairs_hook=_fields
        )
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise HTTPException(400, f"the body is no JSON in UTF-8: {why}") from error
    require(isinstance(content, dict), 'the body is no JSON object: send {"text": "a text"}')
    unknown = next((name for name in content if name not in FIELDS), None)
    require(unknown is None, f"there is no field {unknown!r}: choose from {', '.join(FIELDS)}")
    given = {name: value for name, value in content.items() if value is not None}
    require(
        ("text" in content) != ("texts" in content),
        'give either "text" with a text, or "texts" with a list of texts',
    )
    texts = [content["text"]] if "text" in content else content["texts"]
    require(isinstance(texts, list) and texts != [], "texts: give a list of at least one text")
    most = limits.max_texts
    require(len(texts) <= most, f"{len(texts):,} texts: send at most {most:,} at a time", 413)
    for number, text in enumerate(texts, 1):
        problem = text_problem(text)
        require(not problem, f"text {number} {problem}")
        longest = limits.max_characters
        require(
            len(text) <= longest,
            f"text {number} has {len(text):,} characters: send at most {longest:,}",
            413,
        )
    explain, minimum = given.get("explain", False), given.get("min_probability")
    require(isinstance(explain, bool), "explain: give true or false")
    share = minimum is None or (type(minimum) in (int, float) and 0 < minimum <= 1)
    require(share, "min_probability: give a number above 0 and at most 1")
    threshold = given.get("threshold")
    require(isinstance(threshold, str | None), 'threshold: give a string such as "precision=0.9"')
    return Question(texts, explain, minimum, threshold)


def _not_finite(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise HTTPException(400, f"the field {twice!r} occurs more than once: give it once")
    return fields


class Service:
    """The application, and the worker behind it. `failed` is called if the model cannot be loaded;
    with `loopback`, requests to another name than this machine has for itself are refused.

    Attributes:
        app: The ASGI application.
        worker: The thread that classifies.
        answered: How many requests for predictions were answered.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        failed: Callable[[], None] = lambda: None,
        *,
        loopback: bool = False,
    ) -> None:
        self._model, self._limits = model, limits
        self._decision = functools.lru_cache(64)(model.decision)
        self._openapi = openapi(limits)
        self.worker = Worker(model, limits, failed)
        self.answered = 0
        self.app = Starlette(
            routes=[
                Route("/predict", self._predict, methods=["POST"]),
                Route("/health", self._health),
                Route("/labels", self._labels),
                Route("/openapi.json", self._document),
                Route("/docs", functools.partial(page, "docs.html")),
                Route("/", functools.partial(page, "serve.html")),
            ],
            middleware=[Middleware(LoopbackOnly)] if loopback else [],
            exception_handlers={HTTPException: refused},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False  # a redirect would repeat what a client calls us

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.worker.start()
        yield  # an end by force raises here, and does not wait
        await asyncio.to_thread(self.worker.end)

    async def _health(self, request: Request) -> Response:
        content = {"status": "ready", "waiting": self.worker.waiting}
        if self.worker.ready:
            return as_json(content)
        return as_json({**content, "status": "loading"}, 503, {"Retry-After": "1"})

    async def _labels(self, request: Request) -> Response:
        return as_json(self._model.about)

    async def _document(self, request: Request) -> Response:
        return as_json(self._openapi)

    async def _predict(self, request: Request) -> Response:
        try:
            asked = question(await self._body(request), self._limits)
            if asked.explain and self._model.unexplained:
                raise HTTPException(400, self._model.unexplained)
            decision = await asyncio.to_thread(
                self._decision, asked.threshold, asked.min_probability
            )
            answers = await self._answers(request, self.worker.submit(asked.texts, asked.explain))
            response = await asyncio.to_thread(self._response, decision, answers)
        except HTTPException:
            raise
        except SpaceliteError as error:
            raise HTTPException(400, str(error)) from error
        except QueueFullError as error:
            raise unavailable("too many texts are waiting", error.seconds) from error
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody gets
        except Exception as error:
            if is_out_of_memory(error):
                raise unavailable("memory ran out: send fewer or shorter texts", 1) from error
            # Its message may quote a text.
            code = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(code.filename).name}:{code.lineno}"
            log.error("a request failed: %s in %s", type(error).__name__, where)
            raise HTTPException(500, f"the service failed ({type(error).__name__})") from error
        self.answered += 1
        return response

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # What forms of other sites could send, too.
            raise HTTPException(415, "give the header Content-Type: application/json")
        most, body = self._limits.max_body, bytearray()

        def require(size: int) -> None:
            if size > most:
                raise HTTPException(413, f"the body has more than {most:,} bytes: send fewer texts")

        async def read() -> None:
            async for part in request.stream():
                require(len(body) + len(part))
                body.extend(part)

        declared = request.headers.get("content-length", "")
        require(int(declared) if declared.isdecimal() else 0)
        try:
            await asyncio.wait_for(read(), self._limits.read_timeout)
        except asyncio.TimeoutError as error:
            late = f"the request did not arrive within {self._limits.read_timeout:g} s"
            raise HTTPException(408, late, {"Connection": "close"}) from error
        return bytes(body)

    async def _answers(self, request: Request, answered: Future[list[Answer]]) -> list[Answer]:
        """Wait for the answers of a job, and give it up if the client does, or time is over."""
        waiting = asyncio.wrap_future(answered)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            both: set[asyncio.Future[Any]] = {waiting, gone}
            await asyncio.wait(
                both, timeout=self._limits.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                return waiting.result()
            if gone.done():
                raise ClientDisconnect
            raise unavailable(f"no answer within {self._limits.timeout:g} s: send fewer texts", 1)
        finally:
            gone.cancel()
            waiting.cancel()

    def _response(self, decision: Decision, answers: Sequence[Answer]) -> Response:
        given = decision.of(np.stack([answer.probabilities for answer in answers]))
        predictions = [
            {
                **labels,
                **decision.chances(answer.probabilities),
                "unknown": answer.unknown,
                "truncated": answer.truncated,
                **({} if answer.explanation is None else {"explanation": answer.explanation}),
            }
            for labels, answer in zip(given, answers, strict=True)
        ]
        return as_json(
            {
                "run": self._model.about["run"],
                "thresholds": decision.thresholds,
                "min_probability": decision.min_probability,
                "predictions": predictions,
            }
        )


class LoopbackOnly:
    """Refuses requests to a name that this machine does not have for itself. A page of another site
    whose name leads here (DNS rebinding) could use the service otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        host = Headers(scope=scope).get("host") if scope["type"] == "http" else None
        if host is None or is_loopback(host):  # browsers always send one
            await self._app(scope, receive, send)
            return
        problem = f"Host {host[:100]!r} is not this machine: ask 127.0.0.1 or localhost"
        await as_json({"error": visible_name(problem)}, 421)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a Host, with or without a port, is a name or an address of loopback."""
    parts = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*))(?::\d*)?", host)
    name = "" if parts is None else parts[1] or parts[2]
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


# Responses.


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document."""
    text = json.dumps(files.finite(content), ensure_ascii=False, allow_nan=False)
    safe = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **(headers or {})}
    return Response(text.encode(), status, safe, "application/json")


async def refused(request: Request, error: Any) -> Response:
    """The answer to a request that is not served, given the HTTPException."""
    detail = error.detail
    if error.status_code == 404:
        routes = [
            f"{method} {route.path}"
            for route in request.app.routes
            for method in sorted(route.methods - {"HEAD"})
        ]
        detail = f"there is no such route: choose from {', '.join(routes)}"
    elif error.status_code == 405:
        allowed = sorted({*error.headers["Allow"].split(", ")} - {"HEAD"})
        detail = f"{request.scope['path']} takes no {request.method}: send {' or '.join(allowed)}"
    detail = detail.encode("utf-8", "backslashreplace").decode()  # a half of a character
    return as_json({"error": visible_name(detail)}, error.status_code, error.headers)


def unavailable(problem: str, seconds: int) -> HTTPException:
    """503, and when to try again."""
    return HTTPException(503, f"{problem}; try again later", {"Retry-After": str(seconds)})


async def page(name: str, request: Request) -> Response:
    """A page for people: one file, which may load nothing and run no script but its own."""
    return Response(*_page(name), media_type="text/html")


@functools.cache
def _page(name: str) -> tuple[bytes, int, dict[str, str]]:
    content = (TEMPLATES / name).read_text("utf-8")
    hashes = {}
    for tag in ("style", "script"):
        (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        hashes[tag] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return content.encode(), 200, headers


def openapi(limits: Limits) -> dict[str, Any]:
    """The OpenAPI document, with these limits in it."""
    document: dict[str, Any] = json.loads((TEMPLATES / "openapi.json").read_text("utf-8"))
    document["info"]["version"] = version("spacelite")
    fields = document["components"]["schemas"]["Question"]["properties"]
    fields["text"]["maxLength"] = fields["texts"]["items"]["maxLength"] = limits.max_characters
    fields["texts"]["maxItems"] = limits.max_texts
    return document


# The server.


class Connection(H11Protocol):
    """A connection, which is cut off if the head of a request takes more than so many seconds, or
    if the client reads hardly anything of its answer for as long; uvicorn would wait for both."""

    def __init__(self, *arguments: Any, seconds: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes of an answer, when the deadline was set

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # a part of a request's head
            self._limit()
        else:
            self._unlimit()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # what the client has not read
            self._limit()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimit()
        super().connection_lost(exc)

    def _limit(self) -> None:
        if self._deadline is None:
            self._unread = self.transport.get_write_buffer_size()
            self._deadline = self.loop.call_later(self._seconds, self._cut_off)

    def _unlimit(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self._deadline = None
        unread = self.transport.get_write_buffer_size()
        busy = self.cycle is not None and not self.cycle.response_complete
        if unread and self._unread - unread >= LEAST_READ:
            self._limit()
        elif unread or not busy:
            self.transport.abort()


class Server(uvicorn.Server):
    """The server, which SIGTERM and Ctrl-C end in order."""

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, and answer the rest. Clients are told first that their connections
        end: uvicorn would close those that wait, though a request may be on its way."""
        closing = [*self.server_state.default_headers, (b"connection", b"close")]
        self.server_state.default_headers = closing
        for connection in self.server_state.connections:
            if isinstance(connection, Connection) and connection.cycle is not None:
                connection.cycle.default_headers = closing
        await asyncio.sleep(LINGER)
        await super().shutdown(sockets)

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the two signals in the block. uvicorn would raise them again after it, and the
        exit code would be theirs."""
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    model: Model,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C; what was accepted until then is answered.

    Args:
        model: The model, which is loaded once the port is open.
        host: Name or address to listen at.
        port: Port to listen at; 0 for any that is free.
        limits: What is taken, and how long the service waits.
        listening: Called with the URL once the port is open.

    Raises:
        SpaceliteError: The port cannot be opened, or the model not be loaded.
        KeyboardInterrupt: A second Ctrl-C came before all was answered.
    """
    limits = limits or Limits()
    require("port", port, whole_number(0, 65535))
    with listen(host, port) as listener, quiet():
        address, number = listener.getsockname()[:2]
        loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        if not loopback:
            log.warning(
                "%s is open to other machines, and whoever reaches it may use the service: there "
                "is no authentication and no encryption", host,
            )  # fmt: skip

        def failed() -> None:
            server.should_exit = True

        service = Service(model, limits, failed, loopback=loopback)
        patience = limits.timeout + 2 * limits.read_timeout
        server = Server(
            uvicorn.Config(
                service.app,
                http=functools.partial(Connection, seconds=limits.read_timeout),  # type: ignore[arg-type]
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=math.ceil(patience),
            )
        )
        listening(f"http://{f'[{address}]' if ':' in address else address}:{number}")
        server.run([listener])
        if server.force_exit:
            raise KeyboardInterrupt
        if service.worker.problem is not None:
            raise service.worker.problem
        count = service.answered
        log.info("ended; %s request%s answered", f"{count:,}", " was" if count == 1 else "s were")


def listen(host: str, port: int) -> socket.socket:
    """Open a port. Raises SpaceliteError if it cannot be opened."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SpaceliteError(f"host={host}: there is no such address", ["host"]) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            problem = f"port={port} is in use: give another, or 0 for any that is free"
            raise SpaceliteError(problem, ["port"]) from error
        if error.errno == errno.EACCES:
            problem = f"port={port}: {error.strerror}: give one above 1023"
            raise SpaceliteError(problem, ["port"]) from error
        problem = f"host={host}: {error.strerror}: give an address of this machine"
        raise SpaceliteError(problem, ["host"]) from error
    return listener


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what other packages log of requests to themselves."""
    before = {name: logging.getLogger(name).level for name in QUIET}
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
