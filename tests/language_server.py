"""The real yaml-language-server from the npm registry, spoken to over stdio (Language Server Protocol 3.17)."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

PACKAGE = "yaml-language-server@2.0.0"
PATIENCE = 60.0  # seconds; it answers in one


class NotHere(Exception):
    """The server cannot be had on this machine; says why."""


def installed(folder: Path) -> Path:
    """The server's program, installed once a folder. Raises NotHere without node, npm or a registry."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotHere(f"{program} is not installed")
    place = folder / PACKAGE.replace("@", "-")
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:  # renamed when complete: another process may be doing the same
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", made, PACKAGE]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise NotHere(f"npm install {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
            shutil.copytree(made, place, symlinks=True, dirs_exist_ok=True)
    return place / "node_modules" / ".bin" / "yaml-language-server"


class LanguageServer:
    """One session: documents are opened, diagnostics and completions come back."""

    def __init__(self, program: Path, root: Path) -> None:
        environment = {**os.environ, "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [str(program), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.root, self.number = root, 0

    def __enter__(self) -> Self:
        self.request("initialize", {"processId": os.getpid(), "rootUri": self.root.as_uri(), "capabilities": {}})
        self.notify("initialized", {})
        settings = {"yaml": {"validate": True, "completion": True, "schemaStore": {"enable": False}}}
        self.notify("workspace/didChangeConfiguration", {"settings": settings})
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def diagnostics(self, path: Path, text: str) -> list[tuple[int, str]]:
        """Line (from 1) and message of everything that is found in a document."""
        self._open(path, text)
        while True:
            answer = self.answers.get(timeout=PATIENCE)
            if answer.get("method") == "textDocument/publishDiagnostics" and answer["params"]["uri"] == path.as_uri():
                return [(found["range"]["start"]["line"] + 1, found["message"]) for found in answer["params"]["diagnostics"]]
            self._attend(answer)

    def completions(self, path: Path, text: str) -> set[str]:
        """What may be written where ``|`` stands in a document."""
        before, after = text.split("|")
        self._open(path, before + after)
        place = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        answer = self.request("textDocument/completion", {"textDocument": {"uri": path.as_uri()}, "position": place})
        items = answer["items"] if isinstance(answer, dict) else answer
        return {item["label"] for item in items}

    def request(self, method: str, parameters: Any) -> Any:
        self.number += 1
        self._send({"id": self.number, "method": method, "params": parameters})
        while True:
            answer = self.answers.get(timeout=PATIENCE)
            if answer.get("id") == self.number and "method" not in answer:
                assert "error" not in answer, answer
                return answer["result"]
            self._attend(answer)

    def notify(self, method: str, parameters: Any) -> None:
        self._send({"method": method, "params": parameters})

    def _open(self, path: Path, text: str) -> None:
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def _attend(self, answer: dict[str, Any]) -> None:
        """The server's own questions get an empty answer."""
        if "method" in answer and "id" in answer:
            items = answer.get("params", {}).get("items", ()) if answer["method"] == "workspace/configuration" else ()
            self._send({"id": answer["id"], "result": [None for _ in items] or None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            length = int(line.split(b":")[1])
            while self.process.stdout.readline().strip():
                pass
            self.answers.put(json.loads(self.process.stdout.read(length)))
