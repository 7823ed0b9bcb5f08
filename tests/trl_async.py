"""What stands in for a GPU in asynchronous GRPO: a small server that samples as vLLM does, and torch's attention.

The trainer, its rollout loop, its packing, its loss and its weight sync are TRL's own. Replaced are vLLM's HTTP server
(by one that samples from the same weights, with the same fields in its answers), the transport of weights (NCCL; here
tensors are copied within the process) and the kernel of FlashAttention 3, which runs on Hopper GPUs only.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Sampler:
    """Serves `folder`'s model as vLLM would; it can say `allowed` tokens only. Also TRL's weight transfer."""

    def __init__(self, folder: Path, allowed: Sequence[int]) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.allowed = torch.tensor(list(allowed))
        self.busy = threading.Lock()
        self.requests: list[str] = []
        self.syncs = 0
        self._generator = torch.Generator().manual_seed(0)
        handler = type("Handler", (_Handler,), {"sampler": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sample(self, prompt: Sequence[int], count: int) -> dict[str, Any]:
        """Token ids and their raw log-probabilities, which is what vLLM reports."""
        ids, said, log_probs = list(prompt), [], []
        with self.busy, torch.no_grad():
            for _ in range(count):
                scores = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                drawn = torch.multinomial(scores[self.allowed].softmax(-1), 1, generator=self._generator)
                token = int(self.allowed[drawn])
                ids.append(token)
                said.append(token)
                log_probs.append(float(scores[token]))
        return {"choices": [{"token_ids": said, "logprobs": {"token_logprobs": log_probs}}]}

    # TRL's WeightTransferProtocol

    def init_weight_transfer(self) -> None:
        pass

    def pause(self) -> None:
        self.busy.acquire()

    def send_weights(self, iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
        own = dict(self.model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in iterator:
                own[name].copy_(value)
        self.syncs += 1

    def resume(self) -> None:
        self.busy.release()

    def destroy(self) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    sampler: Sampler

    def do_GET(self) -> None:
        answers = {"/health": {}, "/v1/models": {"data": [{"max_model_len": 4096}]}}
        self._answer(answers.get(self.path))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sampler.requests.append(self.path)
        known = self.path == "/v1/completions" and asked["return_token_ids"] and asked["n"] == 1
        self._answer(self.sampler.sample(asked["prompt"], asked["max_tokens"]) if known else None)

    def _answer(self, body: dict[str, Any] | None) -> None:
        data = json.dumps(body or {}).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class ThreadWorker:
    """TRL's rollout loop in a thread of this process, by the protocol of `rollout_worker`: it starts at once."""

    def __init__(self, **loop: Any) -> None:
        from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop

        self.rollout_buffer: queue.Queue[Any] = queue.Queue()
        self.metrics_queue: queue.Queue[Any] = queue.Queue()
        self.error: queue.Queue[Any] = queue.Queue(maxsize=1)
        self.version = SimpleNamespace(value=0)
        self.failed = threading.Event()
        self._loop = _AsyncRolloutLoop(
            **loop,
            rollout_buffer=self.rollout_buffer,
            metrics_queue=self.metrics_queue,
            exception_info_queue=self.error,
            model_version_value=self.version,
            heartbeat_value=SimpleNamespace(value=time.time()),
            failed_event=self.failed,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException:  # told by check_health, as TRL's own worker does
            assert self.failed.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop._loop.call_soon_threadsafe(self._loop._stop_event.set)
            self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def update_model_version(self, version: int) -> None:
        self.version.value = version

    def check_health(self, stale_after_s: float) -> None:
        if self.failed.is_set():
            raise RuntimeError(self.error.get_nowait())


def torch_attention() -> SimpleNamespace:
    """`flash_attn_varlen_func` by torch: segments laid end to end, each query sees the keys up to its own place."""

    def flash_attn_varlen_func(
        query: Any, key: Any, value: Any, of_queries: Any, of_keys: Any, *_: Any, softmax_scale: Any, **__: Any
    ) -> Any:
        found = []
        bounds = zip(of_queries.tolist(), of_queries[1:].tolist(), of_keys.tolist(), of_keys[1:].tolist(), strict=False)
        for first, last, first_key, last_key in bounds:
            asked = query[first:last].transpose(0, 1)
            repeat = query.shape[1] // key.shape[1]
            keys, values = (
                part[first_key:last_key].transpose(0, 1).repeat_interleave(repeat, 0) for part in (key, value)
            )
            rows, columns = last - first, last_key - first_key
            seen = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
            found.append(
                torch.nn.functional.scaled_dot_product_attention(
                    asked, keys, values, attn_mask=seen, scale=softmax_scale
                ).transpose(0, 1)
            )
        return torch.cat(found)

    return SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
