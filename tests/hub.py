"A hub on loopback, to fetch models from."

import hashlib
import json
import os
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit


class Hub(BaseHTTPRequestHandler):
    "A hub with one repository of files held in memory; the first weight it hands out breaks off half way."

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []
    log_message = lambda *_: None  # noqa: E731

    def answer(self, body: bytes, status=200, sent=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Repo-Commit": "c" * 40, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if sent is None else body[:sent])

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/"):
            rows = [{"rfilename": name} for name in self.files]
            tree = [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in self.files.items()]
            return self.answer(json.dumps(tree if "/tree/" in path else {"id": "KDliang/crashchat", "sha": "c" * 40, "siblings": rows}).encode())
        name = path.split(f"/{'c' * 40}/")[-1]
        body, part = self.files[name], self.headers.get("Range")
        first = int(part.split("=")[1].split("-")[0]) if part else 0
        torn = name.endswith("large.bin") and not any(seen == name for seen, _ in self.asked)
        if self.command == "GET":
            self.asked.append((name, part))
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        about = {"ETag": tag, "Accept-Ranges": "bytes"} | ({"Content_Range": f"bytes {first}-{len(body) - 1}/{len(body)}"} if part else {})
        self.answer(body[first:], 206 if part else 200, len(body) // 2 if torn else None, **about)
        self.close_connection = torn

    do_HEAD = do_GET


@lru_cache
def port() -> int:
    "Of the server, which lives as long as the tests."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def hub_served(home) -> dict[str, str]:
    "The environment of a command that knows this hub only."
    return {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port()}", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
