"""The hub's HTTP interface for repositories of models, on this machine alone: what its client asks
to create a repository, to commit files to it (small ones in the commit, large ones by LFS), and to
fetch them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub import ModelCard

LARGE = 1024  # bytes from which on a file goes by LFS
TOKEN = "hf_of_the_tests"


class FakeHub:
    """Repositories by name: {"owner/name": {"commit": ..., "files": {path: bytes}}}."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}  # uploaded by LFS, by SHA-256
        self.asked: list[str] = []  # methods and paths
        self.unknown: list[str] = []  # of them those that there is no answer to
        self.declared: dict[
            str, int
        ] = {}  # sizes that are given in place of the true ones, by file
        self.read_only = False

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> None:
        """Put files into a repository, without those of before."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories[name] = {"commit": commit, "files": dict(files), "private": private}

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port of the loopback interface; the address."""
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def problems_of(card: str) -> list[dict]:
    """What is wrong with the front matter of a card, as the hub says it."""
    try:
        ModelCard(card, ignore_metadata_errors=False)
    except Exception as error:  # whatever it raises
        return [{"message": str(error)}]
    return []


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None: ...

    def _answer(self, status: int, content=None, headers=None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _refused(self, code: str, status: int) -> None:
        self._answer(status, {"error": code}, {"X-Error-Code": code})

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refused("Unauthorized", 401)
        elif self.hub.read_only:
            self._refused("Forbidden", 403)
        else:
            return True
        return False

    def _handle(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            errors = problems_of(json.loads(body)["content"])
            self._answer(400 if errors else 200, {"errors": errors, "warnings": []})
        elif path.startswith("/api/models/"):
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif parts[0] == "lfs" and self.command == "PUT":
            self.hub.blobs[parts[1]] = body
            self._answer(200)
        elif "resolve" in parts:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            if path != "/api/agent-harnesses":  # the client asks which programs call it
                self.hub.unknown.append(path)
            self._answer(404)

    do_GET = do_POST = do_PUT = do_HEAD = _handle

    def _create(self, wanted: dict) -> None:
        if not self._may_write():
            return
        name = f"{wanted['organization'] or 'tester'}/{wanted['name']}"
        address = {"url": f"http://{self.headers['Host']}/{name}"}
        if name in self.hub.repositories:
            self._answer(409, address)
            return
        self.hub.add(name, {}, wanted.get("visibility") == "private" or bool(wanted.get("private")))
        self._answer(200, address)

    def _known(self, name: str) -> dict | None:
        known = self.hub.repositories.get(name)
        if known is None:
            self._refused("RepoNotFound", 401 if "Authorization" not in self.headers else 404)
        return known

    def _api(self, name: str, rest: list[str], body: bytes) -> None:
        if (known := self._known(name)) is None:
            return
        if not rest or rest[0] == "revision":
            if rest and rest[1] not in ("main", known["commit"]):
                self._refused("RevisionNotFound", 404)
                return
            siblings = [
                {"rfilename": file, "size": self.hub.declared.get(file, len(content))}
                for file, content in known["files"].items()
            ]
            about = {"id": name, "sha": known["commit"], "private": known["private"]}
            self._answer(200, {**about, "siblings": siblings})
        elif rest[0] == "preupload" and self._may_write():
            self._answer(200, {"files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        elif rest[0] == "commit" and self._may_write():
            files = dict(known["files"])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
            self.hub.add(name, files, known["private"])
            self._answer(200, {
                "commitUrl": f"http://{self.headers['Host']}/{name}/commit/1",
                "commitOid": self.hub.repositories[name]["commit"],
            })  # fmt: skip
        elif rest[0] not in ("preupload", "commit"):
            self.hub.unknown.append("/".join(rest))
            self._answer(404)

    def _batch(self, wanted: dict) -> None:
        address = f"http://{self.headers['Host']}/lfs"
        self._answer(200, {"transfer": "basic", "objects": [
            {
                "oid": of["oid"],
                "size": of["size"],
                "actions": {"upload": {"href": f"{address}/{of['oid']}", "header": {}}},
            }
            for of in wanted["objects"]
        ]})  # fmt: skip

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (known := self._known(name)) is None:
            return
        content = known["files"].get(file)
        if content is None:
            self._refused("EntryNotFound", 404)
            return
        self._answer(200, content, {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": known["commit"],
        })  # fmt: skip
