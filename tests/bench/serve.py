"""How fast `spacelite serve` answers 2 to 64 clients, and whether it loses a request at its end:
python tests/bench/serve.py RUN [EXPORT] --cache-dir CACHE

Everything runs on this machine, clients and server on the same cores, over the loopback interface
alone: each client sends a real text of the run's test split, waits for the answer, and sends the
next one. At the end SIGTERM arrives while 64 clients are at work.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import spacelite

CLIENTS = (2, 4, 8, 16, 32, 64)
SECONDS = 10  # of each number of clients
TEXTS = 32  # of a request, in the last line
HEADERS = {"Content-Type": "application/json"}


class Clients:
    """Some clients, each in a thread, from the beginning of the block until its end."""

    def __init__(self, port: int, count: int, texts: list[str], size: int = 1, explain=False):
        self.port, self.size, self.explain = port, size, explain
        self.seconds: list[float] = []  # of each request that was answered
        self.problems: list[str] = []  # of each that was not, after it was sent or before
        self.ended = threading.Event()
        self.threads = [
            threading.Thread(target=self.run, args=(texts[number::count],))
            for number in range(count)
        ]

    def run(self, texts: list[str]) -> None:
        """Send requests until the end; after one that fails, no more."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        stream = itertools.cycle(texts)
        while not self.ended.is_set():
            some = list(itertools.islice(stream, self.size))
            body = json.dumps({"texts": some, "explain": self.explain})
            started, at = time.perf_counter(), "not sent"
            try:
                connection.request("POST", "/predict", body, HEADERS)
                at = "sent"
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{at}: {type(error).__name__}")
                return
            if answer.status != 200 or len(content["predictions"]) != self.size:
                self.problems.append(f"status {answer.status}")
                continue
            self.seconds.append(time.perf_counter() - started)

    def __enter__(self) -> Clients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


def line(name: str, clients: Clients, seconds: float) -> str:
    """A line of the table."""
    cuts = statistics.quantiles(clients.seconds, n=100)
    requests = len(clients.seconds) / seconds
    return (
        f"| {name} | {requests:.0f} | {requests * clients.size:.0f} | {1000 * cuts[49]:.0f} | "
        f"{1000 * cuts[98]:.0f} | {len(clients.problems)} |"
    )


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="whose texts are sent")
    parser.add_argument("export", nargs="?", help="what is served, if not the run")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    options = parser.parse_args()
    run = spacelite.load_run(options.run, options.cache_dir)
    texts = spacelite.find_cache(run.record.cache, cache_dir=options.cache_dir)["test"].texts
    texts = [text for text in texts if text.strip()]
    command = [sys.executable, "-c", "from spacelite_cli import main; main()", "serve"]
    command += [options.export or run.id]
    command += ["--cache-dir", str(options.cache_dir), "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        port = int(json.loads("".join(server.stdout.readline() for _ in range(4)))["url"][17:])
        print(f"{options.export or run.id}: {server.stderr.readline().strip()}")
        print("| clients | requests/s | texts/s | p50, ms | p99, ms | failed |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        answered = 0
        cases = [(f"{count}", count, 1, False) for count in CLIENTS]
        cases += [(f"2, {TEXTS} texts each", 2, TEXTS, False)]
        if run.record.head.kind != "mlp":
            cases += [("2, explained", 2, 1, True)]
        for name, count, size, explain in cases:
            with Clients(port, count, texts, size, explain) as clients:
                started = time.perf_counter()
                time.sleep(SECONDS)
            print(line(name, clients, time.perf_counter() - started), flush=True)
            answered += len(clients.seconds)
        with Clients(port, 64, texts) as clients:
            time.sleep(2)
            server.send_signal(signal.SIGTERM)
            code = server.wait(120)
        answered += len(clients.seconds)
        (said,) = server.stderr.read().splitlines()
        print(f"\nSIGTERM with 64 clients at work: exit code {code}")
        print(f"the server says: {said}; the clients have {answered:,} answers")
        for problem in sorted(set(clients.problems)):
            print(f"{clients.problems.count(problem)} requests {problem}")


if __name__ == "__main__":
    main()
