"""A minimal W&B server: its client can start a run, then the server stops answering."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BUCKET = {
    "id": "1", "name": "run", "displayName": "run", "description": "", "config": "{}", "sweepName": None,
    "summaryMetrics": "{}", "historyLineCount": 0,
    "project": {"id": "2", "name": "autorater", "entity": {"id": "3", "name": "somebody"}},
}  # fmt: skip
_VIEWER = {"id": "4", "entity": "somebody", "username": "somebody", "flags": "{}", "teams": {"edges": []}}
_ANSWERS = {
    "upsertBucket": {"upsertBucket": {"bucket": _BUCKET, "inserted": True}},
    "viewer": {"viewer": _VIEWER},
    "createRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}},
    "model": {"model": None},
}


class FakeWandb:
    """A server on a free port.

    Attributes:
        env: Environment variables that lead W&B's client to it.
        silent: Once it is set, connections are taken and nothing is answered.
        seen_silent: Requests that came after that.
    """

    def __enter__(self) -> "FakeWandb":
        self.silent, self.closed, self.seen_silent = threading.Event(), threading.Event(), 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("utf-8", "replace")
                if fake.silent.is_set():
                    fake.seen_silent += 1
                    fake.closed.wait()
                    return
                data = next((answer for word, answer in _ANSWERS.items() if word in body), {})
                answer = json.dumps({"data": data}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.env = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self._server.server_address[1]}",
            "WANDB_API_KEY": "0" * 40,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return self

    def __exit__(self, *exception) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
