"""A small Hub on this machine: the endpoints that huggingface_hub, transformers and Optimum call, with repositories in memory.

    with serve_hub() as hub:
        ... HF_ENDPOINT=hub.url HF_TOKEN=hub.token ...
        hub.repos["someone/model"].commits

It keeps to what the real one answers: status codes, `X-Error-Code`, `X-Repo-Commit`, redirects of large files to a content
store, 401 for what a visitor may not see. A request that it does not know is answered with 501 and noted in `hub.unknown`.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER, TOKEN = "someone", "hf_local_token_that_may_write"
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
# What .gitattributes of a new model repository sends to the large file storage.
LARGE = (".safetensors", ".onnx", ".bin", ".png", ".h5")
FRONT_MATTER = re.compile(r"^\s*---[\r\n]+([\S\s]*?)[\r\n]+---(\r\n|\n|$)")


@dataclass
class Commit:
    oid: str
    summary: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, summary: str, files: dict[str, bytes]) -> Commit:
        oid = hashlib.sha1(f"{len(self.commits)} {summary} {sorted(map(blob_id, files.values()))}".encode()).hexdigest()
        self.commits.append(Commit(oid, summary, files))
        return self.head


class Hub:
    """State of the server: repositories, the large file storage, and what was asked of it."""

    def __init__(self) -> None:
        self.url, self.storage, self.token = "", "", TOKEN
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.lock = threading.Lock()


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None, **more: Any) -> None:
        self.status, self.body = status, {"error": message, **more}
        self.headers = (
            {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | ({"X-Repo-Commit": commit} if commit else {})
        )


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LARGE) or size > 10 * 2**20)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return self.server.hub

    @property
    def user(self) -> str | None:
        return USER if self.headers.get("Authorization") == f"Bearer {self.hub.token}" else None

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        method = "GET" if self.command == "HEAD" else self.command
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            try:
                for wanted, pattern, handle in ROUTES:
                    match = re.fullmatch(pattern, path) if wanted == method else None
                    if match:
                        return handle(self, **match.groupdict())
                self.hub.unknown.append((self.command, path))
                self._json({"error": "not implemented here"}, 501)
            except Refused as refused:
                self._json(refused.body, refused.status, refused.headers)

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})

    def _writer(self, repo: str | None = None) -> str:
        if self.headers.get("Authorization") is not None and self.user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        if repo is not None and repo.split("/")[0] != self.user:
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{repo.split("/")[0]}"')
        return self.user

    def _repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.user is None):
            if self.user is None:  # the Hub does not tell strangers what exists
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    def _commit(self, name: str, revision: str) -> Commit:
        repo = self._repo(name)
        found = [commit for commit in repo.commits if commit.oid == revision] or ([repo.head] if revision == "main" else [])
        if not found:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    # --- repositories

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self._writer()}/{asked['name']}"
        self._writer(name)
        address = {"url": f"{self.hub.url}/{name}", "name": name}
        if asked.get("type", "model") != "model":
            raise Refused(400, "only models here")
        if name in self.hub.repos:
            raise Refused(409, "You already created this model repo", **address)
        repo = self.hub.repos[name] = Repo(bool(asked.get("private")))
        repo.add("initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self._json(address)

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        block = FRONT_MATTER.search(content)
        if block is None:
            return self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        try:
            errors = metadata_errors(yaml.safe_load(block.group(1)))
        except yaml.YAMLError as error:
            errors = [str(error)]
        self._json({"errors": [{"message": message} for message in errors], "warnings": []}, 400 if errors else 200)
        return None

    def model_info(self, repo: str, revision: str = "main") -> None:
        commit, private = self._commit(repo, revision), self._repo(repo).private
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        self._json({
            "_id": "0", "id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit.oid, "private": private, "gated": False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
            "createdAt": "2025-01-01T00:00:00.000Z", "lastModified": "2025-01-01T00:00:00.000Z",
        })  # fmt: skip

    def tree(self, repo: str, revision: str, folder: str | None = None) -> None:
        commit, prefix = self._commit(repo, revision), f"{folder}/" if folder else ""
        inside = {path: content for path, content in commit.files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit.oid)
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {prefix + path[len(prefix) :].rpartition("/")[0] for path in inside if "/" in path[len(prefix) :]}
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)]
        for path, content in inside.items():
            if deep or "/" not in path[len(prefix) :]:
                entry: dict[str, Any] = {"type": "file", "oid": blob_id(content), "size": len(content), "path": path}
                if is_large(path, len(content)):
                    entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
                entries.append(entry)
        self._json(entries)

    def nothing(self) -> None:
        raise Refused(404, "not here")

    # --- reading files

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        content = commit.files.get(path)
        if content is None:
            raise Refused(404, "Entry not found", "EntryNotFound", commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if is_large(path, len(content)):
            oid = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{oid}"', "Location": f"{self.hub.storage}/storage/{oid}"}
            return self._send(b"", 302, {**headers, **linked})
        self._send(content, 200, {**headers, "ETag": f'"{blob_id(content)}"'})
        return None

    def from_storage(self, oid: str) -> None:
        if oid not in self.hub.large:
            raise Refused(404, "no such object")
        self._send(self.hub.large[oid], 200, {"ETag": f'"{oid}"'})

    # --- committing

    def preupload(self, repo: str, revision: str) -> None:
        self._writer(repo)
        files = self._commit(repo, revision).files
        self._json({
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": self._remote_oid(file["path"], files),
                }
                for file in json.loads(self.body)["files"]
            ]
        })  # fmt: skip

    @staticmethod
    def _remote_oid(path: str, files: dict[str, bytes]) -> str | None:
        content = files.get(path)
        if content is None:
            return None
        return hashlib.sha256(content).hexdigest() if is_large(path, len(content)) else blob_id(content)

    def batch(self, repo: str) -> None:
        self._writer(repo)
        asked = json.loads(self.body)
        objects = []
        for item in asked["objects"]:
            answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large:
                where = {"href": f"{self.hub.storage}/storage/{item['oid']}"}
                answer["actions"] = {"upload": where, "verify": {"href": f"{self.hub.url}/verify/{repo}"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def to_storage(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.hub.large[oid] = self.body
        self._send(b"", 200, {})

    def verify(self, repo: str) -> None:
        self._writer(repo)
        asked = json.loads(self.body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "the object is not there")
        self._json({"message": "Success"})

    def commit(self, repo: str, revision: str) -> None:
        self._writer(repo)
        files = dict(self._commit(repo, revision).files)
        summary = ""
        for line in self.body.splitlines():
            key, value = (json.loads(line)[name] for name in ("key", "value"))
            if key == "header":
                summary = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise Refused(400, f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refused(400, f"unknown operation {key}")
        added = self._repo(repo).add(summary, files)
        self._json({"success": True, "commitOid": added.oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{added.oid}"})


def metadata_errors(data: Any) -> list[str]:
    """What the real Hub would refuse in the metadata of a card."""
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    errors = [
        f'"{name}" must be a string' for name in ("license", "library_name", "pipeline_tag") if not isinstance(data.get(name, ""), str)
    ]
    if not re.fullmatch(r"[a-z0-9.+-]+", str(data.get("license", "mit"))):
        errors.append('"license" must be one of the known ones')
    for index in data.get("model-index", []):
        for result in index["results"]:
            whole = result["task"].get("type") and result["dataset"].get("type") and result["dataset"].get("name")
            if not whole or not all("type" in metric and "value" in metric for metric in result["metrics"]):
                errors.append('"model-index" is incomplete')
    return errors


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", f"/api/models/{REPO}", Handler.model_info),
    ("GET", f"/api/models/{REPO}/revision/(?P<revision>[^/]+)", Handler.model_info),
    ("GET", f"/api/models/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    ("POST", f"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", f"/api/models/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", f"/{REPO}\\.git/info/lfs/objects/batch", Handler.batch),
    ("POST", f"/verify/{REPO}", Handler.verify),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", Handler.to_storage),
    ("GET", "/storage/(?P<oid>[0-9a-f]{64})", Handler.from_storage),
    ("GET", "/api/agent-harnesses", Handler.nothing),  # what releases from 2 on also ask for, and do without
    ("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Runs a Hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = server.hub = Hub()  # type: ignore[attr-defined]
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    # Another name of the same machine: the real Hub's large files lie elsewhere, too, and clients send no token there.
    hub.storage = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
