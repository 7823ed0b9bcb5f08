"""A vision-language model in this process as a `ChatBackend`: Qwen2.5-VL, Qwen3-VL, and what else transformers loads.

Safe by construction: safetensors only, no code from a model's repository, no network unless a hub id is given, no
control token from a request's text, none in a reply. What goes wrong with one request is that request's failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.backends.chat import ChatReply, ChatRequest, Sampling, TokenLogprob
from editr1_plugins.backends.model_files import find_adapter, find_model, split_spec
from editr1_plugins.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import torch

    from editr1_plugins.backends.drawing import Drawing
    from editr1_plugins.backends.local_model import LocalModel, Recipe
    from editr1_plugins.backends.shared_prefix import EncodedPrompt

__all__ = ["TransformersBackend"]

_MAX_REASON: Final = 300
_log = logging.getLogger(__name__)


class TransformersBackend:
    """Chat with a model loaded by `AutoModelForImageTextToText`.

    Requests are generated in batches; one that fails, for lack of memory or otherwise, is tried again in halves, down
    to single replies. Batched, order kept, safe from several threads, which take turns. Sampling draws from generators
    of its own: torch's global random state stays as it is, and the same request with the same seed gets the same reply
    whatever else is in the batch, up to rounding (batched and padded sums round differently, more so in bfloat16).

    Requests of one `group` share the computation of their common beginning (rubric, principles, source image), and the
    samples of one request that of the whole prompt, for Qwen2.5-VL and Qwen3-VL. Other models compute every prompt
    whole: their positions, masks or caches cannot be cut at any token.

    Picklable: the weights are loaded again where it is first used. Copies, and other backends on the same model, share
    the weights within a process.

    Args:
        model: a folder, or a hub id.
        adapter: a LoRA adapter for it: a folder, or a hub id.
        revision: of a hub id.
        device: where to load it, e.g. "cuda:1"; "auto" spreads it over all GPUs; None: the process's GPU, else the CPU.
        dtype: e.g. "bfloat16"; None: as in the checkpoint.
        max_batch: most replies generated at once; lowered by itself where the memory does not suffice.
        share_prefix: False computes every prompt whole.

    Attributes:
        identity: `transformers:NAME@VERSION[+ADAPTER@VERSION] DTYPE`; the version is a hub commit or a digest of the
            files.

    Raises:
        ConfigError: no such model, not in safetensors, or not loadable.
        MissingExtraError: the model's processor needs a package that is not installed.
    """

    identity: str
    _recipe: Recipe | None
    _live: LocalModel | None

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        max_batch: int = 16,
        share_prefix: bool = True,
    ) -> None:
        from editr1_plugins.backends.local_model import Recipe

        if max_batch < 1:
            raise ConfigError(f"max_batch must be at least 1, got {max_batch}")
        self.max_batch, self.share_prefix = max_batch, share_prefix
        recipe = self._recipe = Recipe(
            model=find_model(model, revision),
            adapter=None if adapter is None else find_adapter(adapter),
            device=_default_device() if device is None else str(device),
            dtype="auto" if dtype is None else str(dtype).removeprefix("torch."),
        )
        added = f"+{recipe.adapter.name}" if recipe.adapter is not None else ""
        self.identity, self._where = f"transformers:{recipe.model.name}{added} {recipe.dtype}", recipe.device
        self._live = None
        self._loaded()

    @classmethod
    def around(cls, live: LocalModel, name: str, *, max_batch: int = 16) -> TransformersBackend:
        """A backend on a model that is loaded already, such as one in training; not picklable.

        Its own `generation_config` must be `live.own_generation_config` while it is in use.
        """
        backend = cls.__new__(cls)
        backend.max_batch, backend.share_prefix = max_batch, True
        backend.identity, backend._where = f"transformers:{name}", str(live.model.device)
        backend._recipe, backend._live = None, live
        return backend

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> TransformersBackend:
        """Build a backend from `MODEL[?adapter=...&revision=...&device=...&dtype=...&max_batch=...]`.

        Raises:
            ConfigError: the spec cannot be read, and as for the class.
        """
        model, settings = split_spec(argument)
        return cls(model, **{**settings, **options})

    def __repr__(self) -> str:
        return f"TransformersBackend({self.identity!r}, device={self._where!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None}

    def __copy__(self) -> TransformersBackend:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> TransformersBackend:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def close(self) -> None:
        """Let go of the weights; the next `complete` loads them again."""
        self._live = None

    def complete(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
        """Generate all replies; order kept, `sampling.samples` per request; what fails is a reply with `failure`.

        Raises:
            TypeError: a part of a request is neither text nor a PIL image.
            ConfigError, MissingExtraError: after unpickling only, as for the class.
        """
        _check_parts(requests)
        if not requests:
            return []
        return _Call(self._loaded(), self, requests, sampling).replies()

    def _loaded(self) -> LocalModel:
        from editr1_plugins.backends.local_model import live_model

        live = self._live
        if live is None:
            if self._recipe is None:
                raise ConfigError(f"{self.identity} lives in another process, or was let go of")
            live = self._live = live_model(self._recipe)
        return live


@dataclass(frozen=True)
class _Job:
    """One reply to be made."""

    request: int
    sample: int


class _Call:
    """One `complete`: encodes each request once, generates in batches, halves what fails."""

    def __init__(
        self, live: LocalModel, backend: TransformersBackend, requests: Sequence[ChatRequest], sampling: Sampling
    ) -> None:
        self.live, self.backend, self.requests, self.sampling = live, backend, requests, sampling
        self.started = time.monotonic()
        self.prompts: dict[int, EncodedPrompt] = {}

    def replies(self) -> list[list[ChatReply]]:
        made: dict[_Job, ChatReply] = {}
        jobs = []
        for number in self._by_group():
            problem = self._encode(number)
            for sample in range(self.sampling.samples):
                job = _Job(number, sample)
                if problem is None:
                    jobs.append(job)
                else:
                    made[job] = self._failed(problem)
        while jobs:
            batch, jobs = jobs[: self.backend.max_batch], jobs[self.backend.max_batch :]
            made.update(zip(batch, self._answer(batch), strict=True))
        samples = range(self.sampling.samples)
        return [[made[_Job(number, sample)] for sample in samples] for number in range(len(self.requests))]

    def _by_group(self) -> list[int]:
        """Numbers of the requests, those of a group together."""
        first: dict[object, int] = {}
        for number, request in enumerate(self.requests):
            first.setdefault(request.group or number, number)
        return sorted(range(len(self.requests)), key=lambda number: first[self.requests[number].group or number])

    def _encode(self, number: int) -> str | None:
        """Fill in `prompts`; or say why not."""
        try:
            with self.live.lock:
                prompt = self.live.encode(self.requests[number])
        except ImageError as error:
            return f"image: {error}"
        except Exception as error:
            return f"bad_request: {type(error).__name__}: {error}"
        longest = self.live.max_length
        if longest is not None and len(prompt) >= longest:
            return f"prompt_too_long: {len(prompt)} tokens, and the model takes {longest} with its reply"
        self.prompts[number] = prompt
        return None

    def _answer(self, jobs: list[_Job]) -> list[ChatReply]:
        try:
            with self.live.lock:
                return self._generate(jobs)
        except Exception as error:  # out of memory, mostly; anything else must not end a training run either
            _log.warning("generating %d replies failed: %s: %s", len(jobs), type(error).__name__, error)
            problem, short = f"{type(error).__name__}: {error}", _is_memory(error)
        # Outside of the handler, which keeps every tensor of the failed attempt alive.
        if short:
            _free_memory()
        half = len(jobs) // 2
        if half == 0:
            return [self._failed(f"{'out_of_memory' if short else 'model_error'}: {problem}")]
        if short:
            self.backend.max_batch = max(1, min(self.backend.max_batch, len(jobs) - half))
        return [*self._answer(jobs[:half]), *self._answer(jobs[half:])]

    def _generate(self, jobs: list[_Job]) -> list[ChatReply]:
        import torch
        from transformers import GenerationConfig

        from editr1_plugins.backends.drawing import Drawing, generators, request_digest

        live, sampling = self.live, self.sampling
        warm = sampling.temperature > 0.0
        draws = [(request_digest(self.requests[job.request]), job.sample) for job in jobs] if warm else []
        seeds = generators(live.model.device, sampling.seed, draws)
        drawing = Drawing(
            live.forbidden, temperature=sampling.temperature, generators=seeds, keep_logprobs=sampling.logprobs
        )
        settings = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(live.ends) or None,
            pad_token_id=live.pad,
        )
        inputs, cached = self._inputs(jobs)
        with torch.inference_mode():
            output = live.model.generate(
                **inputs, generation_config=settings, logits_processor=[drawing], synced_gpus=False
            )
        made = output[:, inputs["input_ids"].shape[1] :].tolist()
        broken = drawing.broken.tolist() if drawing.broken is not None else [False] * len(jobs)
        return [
            self._reply(job, ids, broken[row], _logprobs(live, drawing, row, ids), cached.get(job.request))
            for row, (job, ids) in enumerate(zip(jobs, made, strict=True))
        ]

    def _inputs(self, jobs: list[_Job]) -> tuple[dict[str, Any], dict[int, int]]:
        """Arguments of `generate`, and per request how many of its tokens another one's computation gave."""
        from editr1_plugins.backends.shared_prefix import prefill, share

        numbers = list(dict.fromkeys(job.request for job in jobs))
        prompts = [self.prompts[number] for number in numbers]
        if self.backend.share_prefix and self.live.shares_prefixes and all(prompt.is_divisible for prompt in prompts):
            shared = share(prompts, [self.requests[number].group for number in numbers])
            if len(shared) < len(jobs):
                row = {number: place for place, number in enumerate(numbers)}
                filled = prefill(self.live.model, prompts, shared, self.live.pad)
                cached = {
                    numbers[member]: length if place else 0
                    for members, length in shared
                    for place, member in enumerate(members)
                }
                return filled.rows([row[job.request] for job in jobs]), cached
        return self.live.collate([self.prompts[job.request] for job in jobs]), {}

    def _reply(
        self,
        job: _Job,
        ids: list[int],
        broken: bool,
        logprobs: tuple[TokenLogprob, ...] | None,
        cached: int | None,
    ) -> ChatReply:
        if broken:
            return self._failed("model_error: its logits are not numbers; load it in another dtype, such as bfloat16")
        kept = _until_end(ids, self.live.ends)
        text = self.live.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = len(kept) < len(ids)
        return ChatReply(
            text=text,
            finish_reason="stop" if ended else "length",
            prompt_tokens=len(self.prompts[job.request]),
            completion_tokens=len(kept) + ended,
            cached_tokens=cached,
            latency=time.monotonic() - self.started,
            logprobs=logprobs,
        )

    def _failed(self, problem: str) -> ChatReply:
        words = " ".join(problem.split())[:_MAX_REASON]
        return ChatReply(failure=words, finish_reason="error", latency=time.monotonic() - self.started)


def _until_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    return next((ids[:place] for place, number in enumerate(ids) if number in ends), ids)


def _logprobs(live: LocalModel, drawing: Drawing, row: int, ids: list[int]) -> tuple[TokenLogprob, ...] | None:
    if not drawing.keep_logprobs:
        return None

    def text(number: int) -> str:
        return str(live.tokenizer.decode([number], clean_up_tokenization_spaces=False))

    made = []
    for step in drawing.steps[: len(_until_end(ids, live.ends))]:
        chosen, own, others, values = (tensor[row] for tensor in step)
        pairs = zip(others.tolist(), values.tolist(), strict=True)
        top = tuple((text(other), value) for other, value in pairs if value > -float("inf"))
        made.append(TokenLogprob(token=text(int(chosen)), logprob=float(own), top=top))
    return tuple(made)


def _check_parts(requests: Sequence[ChatRequest]) -> None:
    from PIL.Image import Image

    for index, request in enumerate(requests):
        for part in request.parts:
            if not isinstance(part, (str, Image)):
                raise TypeError(f"request {index}: a part is text or a PIL image, got {type(part).__name__}")


def _default_device() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    return f"{accelerator.type}:{torch.accelerator.current_device_index()}"


def _is_memory(error: Exception) -> bool:
    import torch

    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error)


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
