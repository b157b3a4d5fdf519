"""A model hub in miniature on this machine: repositories are folders, each of whose folders is a revision."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Answer for `root/org/name/revision/..`; gives the address, and every path asked for so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(f"{self.command} {self.path}")

        def do_HEAD(self) -> None:  # noqa: N802 - named by the library
            self.do_GET()

        def do_GET(self) -> None:  # noqa: N802
            parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "models"] and len(parts) > 4:
                self.describe(root / parts[2] / parts[3], parts[4], "/".join(parts[5:]))
            elif len(parts) > 4 and parts[2] == "resolve":
                self.give(root / parts[0] / parts[1], parts[3], "/".join(parts[4:]))
            else:
                self.answer(404)

        def describe(self, repository: Path, what: str, revision: str) -> None:
            folder = find(repository, revision)
            if folder is None:
                error = "RevisionNotFound" if repository.is_dir() else "RepoNotFound"
                self.answer(404, b"{}", {"X-Error-Code": error})
                return
            files = [entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
            about = {
                "id": "/".join(repository.parts[-2:]),
                "sha": commit(folder),
                "siblings": [{"rfilename": file["path"]} for file in files],
            }
            self.answer(200, json.dumps(files if what == "tree" else about).encode())

        def give(self, repository: Path, revision: str, name: str) -> None:
            folder = find(repository, revision)
            if folder is None or not (folder / name).is_file():
                self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
                return
            told = entry(folder / name, folder)
            tag = told.get("lfs", told)["oid"]
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit(folder)}
            self.answer(200, (folder / name).read_bytes(), headers)

        def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit(folder: Path) -> str:
    """The commit that a revision stands for."""
    return hashlib.sha1(folder.name.encode()).hexdigest()


def find(repository: Path, revision: str) -> Path | None:
    """The folder of a revision, which is a name or a commit."""
    folders = [path for path in repository.iterdir() if path.is_dir()] if repository.is_dir() else []
    return next((folder for folder in folders if revision in (folder.name, commit(folder))), None)


def entry(path: Path, folder: Path) -> dict:
    """What a hub says of one file; weights are large files, known by their SHA-256."""
    content = path.read_bytes()
    told = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if path.suffix == ".safetensors":
        told["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return told
