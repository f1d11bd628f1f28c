"""An OpenAI-compatible server with deliberate faults; standard library only, run as a separate process.

    python benchmarks/harness/fake_endpoint.py --faults 0.2 --delay 0.05        # prints its port, then serves

The answer depends only on the text of the request: a hash of each response gives its merit, plus `--shift` in log-odds
for the second response. A share of requests gets one of seven faults instead. `GET /stats` returns the number of
requests, the number of correct answers, and the largest number of correct answers to the same request. After
`GET /hold/N` no request is answered any more once N further correct answers are given; `GET /go` ends that.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
from collections import Counter

FAULTS = ("500", "429", "slow", "cut", "broken JSON", "empty", "schema")
_RESPONSES = re.compile(r"\[The Start of Response (\w)\]\n(.*?)\n\[The End of Response \1\]", re.DOTALL)


def merit(text: str) -> float:
    """Merit of a response, in (−2, 2); depends only on its text."""
    return 4 * int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32 - 2


def answer(message: str, shift: float) -> float:
    (_, first), (_, second) = _RESPONSES.findall(message)
    return 1 / (1 + math.exp(merit(first) - merit(second) - shift))


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class Server:
    def __init__(self, args: argparse.Namespace):
        self.args, self.random, self.good, self.requests = args, random.Random(args.seed), Counter(), 0
        self.most_good = math.inf

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if hold := re.match(rb"GET /(?:hold/(\d+)|go) ", head):
                    self.most_good = self.good.total() + int(hold[1]) if hold[1] else math.inf
                    writer.write(self.reply(200, b"{}"))
                elif head.startswith(b"GET"):
                    most = max(self.good.values(), default=0)
                    stats = {
                        "requests": self.requests,
                        "good": self.good.total(),
                        "questions": len(self.good),
                        "most": most,
                    }
                    writer.write(self.reply(200, json.dumps(stats).encode()))
                elif not await self.judge(json.loads(body), writer):
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def judge(self, request: dict, writer: asyncio.StreamWriter) -> bool:
        """Answers or misbehaves; False if the connection is to be cut."""
        self.requests += 1
        message = request["messages"][0]["content"]
        await asyncio.sleep(self.args.delay)
        if self.good.total() >= self.most_good:
            await asyncio.sleep(self.args.slow)
            return False
        fault = self.random.choice(FAULTS) if self.random.random() < self.args.faults else None
        if "always refused" in message:
            writer.write(self.reply(400, b'{"error": {"message": "content <b>filtered</b>"}}'))
        elif self.args.status:
            writer.write(self.reply(self.args.status, b'{"error": {"message": "no"}}', "Retry-After: 0.01\r\n"))
        elif fault == "500":
            writer.write(self.reply(500, b"oops"))
        elif fault == "429":
            writer.write(self.reply(429, b'{"error": {"message": "slow down"}}', "Retry-After: 0.05\r\n"))
        elif fault == "cut":
            writer.write(self.reply(200, completion("<prob_rb_better>0.5</prob_rb_better>"))[:90])
            return False
        elif fault == "broken JSON":
            writer.write(self.reply(200, b'{"choices": [{"message": {"content": "<prob'))
        elif fault == "empty":
            writer.write(self.reply(200, completion("")))
        elif fault == "schema":
            writer.write(self.reply(200, b'{"result": "<prob_rb_better>0.5</prob_rb_better>"}'))
        else:
            if fault == "slow":
                await asyncio.sleep(self.args.slow)
            text = f"<prob_rb_better>{answer(message, self.args.shift):.2f}</prob_rb_better>"
            if "unreadable" in message:
                text = "I would rather <script>alert(1)</script> not say."
            if fault != "slow":  # the client has gone by then
                self.good[message] += 1
            writer.write(self.reply(200, completion(text)))
        return True

    @staticmethod
    def reply(status: int, body: bytes, headers: str = "") -> bytes:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=5.0)
    parser.add_argument("--shift", type=float, default=0.0)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    server = Server(parser.parse_args())
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 24)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
