"""inspect_ai: the scorer `edit_rrm`, the scorer `unscored` beside it, the task `image_edits`, a solver that edits.

inspect_ai finds them through the entry-point group `inspect_ai`, as `editr1_plugins/edit_rrm` and so on. Its decorators
register what they mark, so this module needs inspect_ai when it is imported; nothing of a judge is loaded before one is
asked.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from editr1_plugins.adapters.chat_messages import pictures_in, text_in
from editr1_plugins.adapters.conversion import as_edit, as_image
from editr1_plugins.adapters.scorer import shared_scorer
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.types import MAX_SCORE, Verification

__all__ = ["edit_rrm", "image_edits", "pipeline_editor", "unscored", "unscored_share"]

_F = TypeVar("_F", bound=Callable[..., Any])
_Scorer = Callable[[Any, Any], Awaitable[Any]]  # (state, target)


def _host(part: str = "") -> Any:
    try:
        return importlib.import_module(f"inspect_ai{part}")
    except ImportError as error:
        raise MissingExtraError(f"inspect_ai cannot be imported ({error}): pip install inspect-ai") from error


_scoring = _host(".scorer")
# What the host's decorators return is what they are given; said here, since it is imported by name.
_scorer: Callable[..., Callable[[_F], _F]] = _scoring.scorer
_metric: Callable[[_F], _F] = _scoring.metric
_task: Callable[[_F], _F] = _host().task
_solver: Callable[[_F], _F] = _host(".solver").solver


@_metric
def unscored_share() -> Callable[[Sequence[Any]], float]:
    """Metric of the scorer `unscored`: the share of samples without a score, 0..1."""

    def share(scores: Sequence[Any]) -> float:
        return sum(float(each.score.value) for each in scores) / len(scores) if scores else 0.0

    return share


@_scorer(metrics=[_scoring.mean(), _scoring.stderr()])
def edit_rrm(
    verifier: Any = None,
    top: float = MAX_SCORE,
    image_folder: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> _Scorer:
    """Score of the edited image in 0..`top`; NaN where it cannot be judged, which inspect_ai leaves out and counts.

    The edited image is that of `edited` in the sample's store or metadata, else the last one that the model or a tool
    has given. The source is `source` of the metadata, else the first image of the input; the instruction is
    `instruction` of the metadata, else the input's text.

    Args:
        verifier: spec of the judge; default: $EDITR1_SCORER, else $EDITR1_VERIFIER.
        top: what a perfect edit gets.
        image_folder: below which paths of images may be opened; default: none is.
        settings: further ones of `HostScorer` (`decomposer`, `guards`, `samples`, ...).

    Raises:
        DataError: a sample has no source image or no instruction.
        ConfigError: wrong settings, when the first sample is scored.
    """
    given = {} if verifier is None else {"verifier": verifier}

    async def score(state: Any, target: Any) -> Any:
        import anyio.to_thread

        made = _edited(state)
        if made is None:
            return _without("no_response", "there is no edited image: neither the model nor a tool has given one")
        try:
            edited = as_image(made, "the edited image", folder=image_folder)
        except DataError as error:
            return _without("invalid_response_format", str(error))
        source, instruction = _asked(state)
        edit = as_edit(source, edited, instruction, row=state.sample_id, folder=image_folder)
        if isinstance(edit, str):
            return _without("scoring_failed", edit)
        judge = shared_scorer(top=top, **given, **settings)
        # A thread, so that other samples go on meanwhile, whichever loop inspect_ai runs (asyncio or trio).
        said = (await anyio.to_thread.run_sync(judge.judge, [edit]))[0]
        if said.score is None:
            return _without("grader_failed", str(said.failure), said)
        return _scoring.Score(value=judge.scaled(said.score), explanation=_reasons(said), metadata=_details(said))

    return score


@_scorer(metrics=[unscored_share()])
def unscored(of: str = "edit_rrm") -> _Scorer:
    """1 where the scorer `of` has left a sample without a score, else 0: its metric is the share of such samples.

    inspect_ai hands samples without a score to no metric, so a scorer of its own has to count them. List it after `of`.

    Raises:
        ConfigError: `of` has not scored the sample yet.
    """

    async def score(state: Any, target: Any) -> Any:
        found = (state.scores or {}).get(of)
        if found is None:
            raise ConfigError(
                f"there is no score of {of!r} yet; list `unscored` after it, or name it: unscored(of=...)"
            )
        missing = isinstance(found.value, float) and math.isnan(found.value)
        return _scoring.Score(
            value=float(missing), answer=found.reason or "", explanation=found.explanation if missing else None
        )

    return score


@_task
def image_edits(
    benchmark: str = "miniedit:100",
    data: str | None = None,
    first: int | None = None,
    **settings: Any,
) -> Any:
    """Images and instructions for a model that answers with an image, or for an agent (`--solver`) that makes one.

    Args:
        benchmark: any one of editors, as for `editr1 eval editor`: "miniedit:N" (drawn here, 32x32 pixels), "edits"
            (own rows), "gedit", ...
        data: where its rows are.
        first: only that many rows. All their images are held in memory.
        settings: of `edit_rrm`.

    Raises:
        ConfigError, DataError: as for `editr1 eval editor`.
    """
    from editr1_plugins.backends.image_uri import ImageURIs
    from editr1_plugins.evaluation.editors.catalogue import find_editor_benchmark

    if first is not None and (not isinstance(first, int) or first < 1):
        raise ConfigError(f"first must be a whole number of at least 1, got {first!r}")
    found = find_editor_benchmark(benchmark)
    uri_of = ImageURIs()
    samples = [_sample(item, uri_of) for item in itertools.islice(found.edits(data), first)]
    return _host().Task(
        dataset=_host(".dataset").MemoryDataset(samples, name=benchmark),
        solver=_host(".solver").generate(),
        scorer=[edit_rrm(**settings), unscored()],
    )


@_solver
def pipeline_editor(
    model: str, seed: int = 0, dtype: str | None = None, **call: Any
) -> Callable[[Any, Any], Awaitable[Any]]:
    """A diffusers pipeline that edits: `--model none/none --solver editr1_plugins/pipeline_editor -S model=ID`.

    The seed of an edit follows from `seed`, the sample's id and its epoch. Samples are edited one at a time.

    Args:
        model: a hub id or folder of a pipeline, or "miniedit", the tiny trained one.
        seed: of the run.
        dtype: "float32", "bfloat16" or "float16"; default: bfloat16 on an accelerator, float32 on a CPU.
        call: further arguments of the pipeline's call (`num_inference_steps`, `guidance_scale`, ...).

    Raises:
        ConfigError: the pipeline cannot be loaded, or does not take such arguments; when the first sample is edited.
    """
    lock = threading.Lock()

    @functools.cache
    def editor() -> Any:
        from editr1_plugins.evaluation.editors.loading import load_pipeline_of, pipeline_call
        from editr1_plugins.evaluation.editors.sampling import PipelineEditor

        return PipelineEditor(load_pipeline_of(model, dtype=dtype), call=pipeline_call(model, call), seed=seed)

    def edit(state: Any) -> Any:
        from editr1_plugins.evaluation.editors.items import EditorItem, Sources

        source, instruction = _asked(state)
        given = [as_image(each, f"sample {state.sample_id}: source image") for each in _given(state) or [source]]
        sources = Sources(given, given[0])
        item = EditorItem(key=f"{state.sample_id}/{state.epoch}", instruction=instruction, read=lambda: sources)
        with lock:
            return editor().edit(item, sources)

    async def solve(state: Any, generate: Any) -> Any:
        import anyio.to_thread

        from editr1_plugins.backends.image_uri import ImageURIs

        made = await anyio.to_thread.run_sync(edit, state)
        host = _host(".model")
        state.output = host.ModelOutput.from_content(model, [host.ContentImage(image=ImageURIs()(made))])
        state.messages.append(state.output.message)
        return state

    return solve


def _sample(item: Any, uri_of: Callable[[Any], str]) -> Any:
    model = _host(".model")
    sources = item.read()
    images = [uri_of(image) for image in sources.given]
    shown = uri_of(sources.shown)
    metadata = {"instruction": item.instruction, "category": item.category}
    if not images or images[0] != shown:
        metadata["source"] = shown
    content = [*(model.ContentImage(image=image) for image in images), model.ContentText(text=item.instruction)]
    return _host(".dataset").Sample(id=item.key, input=[model.ChatMessageUser(content=content)], metadata=metadata)


def _asked(state: Any) -> tuple[Any, Any]:
    """The source image and the instruction of a sample."""
    images = _given(state)
    source = state.metadata.get("source", images[0] if images else None)
    asked = (
        state.input if isinstance(state.input, str) else text_in(each for each in state.input if each.role == "user")
    )
    return source, state.metadata.get("instruction", asked)


def _given(state: Any) -> list[Any]:
    return [] if isinstance(state.input, str) else pictures_in(state.input)


def _edited(state: Any) -> Any:
    """The edited image as the sample holds it; None where there is none."""
    for place in (state.store, state.metadata):
        if place.get("edited") is not None:
            return place.get("edited")
    # Of the conversation only what came after the sample's own messages.
    made = [each for each in state.messages if each.role in ("assistant", "tool") and each.source != "input"]
    images = pictures_in([*made, state.output.message] if state.output.choices else made)
    return images[-1] if images else None


def _without(reason: str, explanation: str, said: Verification | None = None) -> Any:
    return _scoring.Score.unscored(
        reason=reason, explanation=explanation, metadata=None if said is None else _details(said)
    )


def _details(said: Verification) -> dict[str, Any]:
    return {
        "verdicts": [
            {"question": each.principle.question, "category": each.principle.category, "passed": each.passed}
            for each in said.verdicts
        ],
        "flags": list(said.flags),
        "spread": said.spread,
        "samples": said.samples,
    }


def _reasons(said: Verification) -> str:
    """One line a verdict and a flag, for people."""
    words = {True: "yes", False: "no", None: "not judged"}
    verdicts = [
        f"- {words[each.passed]}: {each.principle.question}" + (f" ({each.reason})" if each.reason else "")
        for each in said.verdicts
    ]
    return "\n".join([*verdicts, *(f"- flag: {flag}" for flag in said.flags)])
