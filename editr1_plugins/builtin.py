"""Our own parts, added through the same doors as everybody's; each factory imports what it builds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from .types import Decomposer, Guard, Verifier

__all__ = [
    "register_algorithms",
    "register_benchmarks",
    "register_decomposers",
    "register_guards",
    "register_pipelines",
    "register_verifiers",
]


def _measure() -> Verifier:
    from .verifiers.measure import MeasureVerifier

    return MeasureVerifier()


def _openai(argument: str) -> Verifier:
    from .verifiers.openai import OpenAIVerifier

    return OpenAIVerifier.from_spec(argument)


def _transformers(argument: str) -> Verifier:
    from .verifiers.transformers import TransformersVerifier

    return TransformersVerifier.from_spec(argument)


def _rrm_mini() -> Verifier:
    from .miniedit.judge import load_judge

    return load_judge()


def _viescore(argument: str) -> Verifier:
    from .evaluation.judges import backend_of
    from .evaluation.viescore import VIEScoreVerifier

    return VIEScoreVerifier(backend_of(argument))


def _whole_edit() -> Decomposer:
    from .evaluation.judges import WholeEdit

    return WholeEdit()


def _rules() -> Decomposer:
    from .principles.rules import RulesDecomposer

    return RulesDecomposer()


def _vlm(argument: str) -> Decomposer:
    from .principles.vlm import VlmDecomposer

    place, _, model = argument.partition(":")
    if place == "transformers":
        from .backends.transformers import TransformersBackend

        return VlmDecomposer(TransformersBackend.from_spec(model))
    return VlmDecomposer.from_spec(argument)


def _first(argument: str) -> Decomposer:
    from .principles.chain import FallbackDecomposer

    return FallbackDecomposer.from_spec(argument)


def _guard(class_name: str) -> Guard:
    from . import guards

    guard: Guard = getattr(guards, class_name)()
    return guard


def _flow_grpo() -> Any:
    from .training.algorithms.flow_grpo import FlowGRPO

    return FlowGRPO()


def _nft() -> Any:
    from .training.algorithms.nft import DiffusionNFT

    return DiffusionNFT()


@hookimpl
def register_verifiers(register: Register) -> None:
    register("measure", _measure, summary="measures the pixels; no model, says None where it cannot measure")
    register(
        "openai",
        _openai,
        summary="openai:MODEL@URL, any VLM behind an OpenAI-compatible server",
        requires=("openai[openai]",),
    )
    register("rrm-mini", _rrm_mini, summary="a tiny trained judge of 32x32 shapes (MiniEdit), and of nothing else")
    register("transformers", _transformers, summary="transformers:PATH_OR_ID, a VLM in this process")
    register(
        "viescore",
        _viescore,
        summary="viescore:MODEL@URL, a VLM that grades the edit as a whole; take the decomposer whole-edit",
    )


@hookimpl
def register_decomposers(register: Register) -> None:
    register("first", _first, summary="first:A|B, the first of several decomposers that has an answer")
    register("rules", _rules, summary="reads common instructions with rules; no model")
    register(
        "vlm",
        _vlm,
        summary="vlm:MODEL@URL or vlm:transformers:PATH_OR_ID, few-shot prompts to a VLM",
    )
    register("whole-edit", _whole_edit, summary="one question for any edit, for verifiers that read none")


@hookimpl
def register_guards(register: Register) -> None:
    for name, class_name, summary in (
        ("no-edit", "NoEditGuard", "a copy of the source: score 0, and no judge call"),
        ("border", "BorderGuard", "a border of one colour that the source lacks"),
        ("size", "SizeGuard", "other proportions, most pixels lost, or the content cut, zoomed or shifted"),
        ("drift", "BackgroundDriftGuard", "the surroundings changed although a local edit was asked"),
        ("saturation", "SaturationGuard", "colours pushed all over the picture"),
        ("sharpness", "SharpnessGuard", "the source's fine detail amplified"),
        ("dots", "DotsGuard", "grain or dots all over the picture"),
        ("collage", "CollageGuard", "the whole source shown within the edited image"),
    ):
        register(name, partial(_guard, class_name), summary=summary)
    register(
        "text",
        partial(_guard, "PaintedTextGuard"),
        summary="words painted into the image, read by OCR",
        requires=("rapidocr_onnxruntime[ocr]",),
    )


def _joy_image() -> Any:
    from .training.pipelines import PipelineFacts

    # It reads a decoder layer of its text encoder through a forward hook, which a played-back output does not trigger.
    return PipelineFacts(encoders=("_get_qwen_prompt_embeds", "encode_prompt_multiple_images"))


def _joy_image_plus() -> Any:
    from .training.pipelines import PipelineFacts

    return PipelineFacts(encoders=("encode_prompt_multiple_images",))


@hookimpl
def register_pipelines(register: Register) -> None:
    register("JoyImageEditPipeline", _joy_image, summary="its prompt encoders read hidden states through hooks")
    register(
        "JoyImageEditPlusPipeline", _joy_image_plus, summary="its prompt encoder reads hidden states through a hook"
    )


@hookimpl
def register_algorithms(register: Register) -> None:
    register("flow_grpo", _flow_grpo, summary="clipped policy gradient with exact KL (arXiv 2505.05470)")
    register("nft", _nft, summary="contrast of noised results, no likelihoods (arXiv 2509.16117)")


def _benchmark(module: str, class_name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f".evaluation.benchmarks.{module}", __package__), class_name)()


def _imagenhub(argument: str = "Text-Guided_IE") -> Any:
    from .evaluation.benchmarks.imagenhub import ImagenHubBenchmark

    return ImagenHubBenchmark(argument)


def _editor_benchmark(module: str, class_name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f".evaluation.editors.{module}", __package__), class_name)()


def _gedit(which: str = "en") -> Any:
    from .evaluation.editors.gedit import GEditBenchmark

    return GEditBenchmark(which)


def _miniedit(count: str = "100") -> Any:
    from .evaluation.editors.own import MiniEditBenchmark

    return MiniEditBenchmark(count)


@hookimpl
def register_benchmarks(register: Register) -> None:
    for name, module, class_name, summary in (
        ("editscore", "editscore", "EditScoreBenchmark", "EditScore's EditReward-Bench: 13 task types, 3 dimensions"),
        ("tiger-editreward", "tiger", "TigerBenchmark", "TIGER-Lab's EditReward-Bench: 2-, 3- and 4-way rankings"),
        ("genai-bench", "genai", "GenAIBenchmark", "GenAI-Bench, image editing: pairs with ties"),
        ("mmrb2", "mmrb2", "MMRB2Benchmark", "Multimodal RewardBench 2, image editing: both orders"),
        ("editreward-compass", "compass", "CompassBenchmark", "EditReward-Compass: pairs by dimension, with ties"),
        ("vcreward", "vcreward", "VCRewardBenchmark", "VCReward-Bench: visual consistency, 21 tasks"),
        ("pairs", "own", "OwnPairs", "your own pairs, JSONL or Parquet"),
        ("ratings", "own", "OwnRatings", "your own ratings, JSONL or Parquet"),
    ):
        register(name, partial(_benchmark, module, class_name), summary=summary)
    for name, module, class_name, summary in (
        ("imgedit", "imgedit", "ImgEditBenchmark", "editors: ImgEdit-Bench, nine types, 1..5"),
        ("kris", "kris", "KRISBenchmark", "editors: KRIS-Bench, 20 categories that need knowledge"),
        ("rise", "rise", "RISEBenchmark", "editors: RISEBench, four kinds of reasoning"),
        ("edits", "own", "OwnEdits", "editors: your own sources and instructions, JSONL or Parquet"),
    ):
        register(name, partial(_editor_benchmark, module, class_name), summary=summary)
    register("gedit", _gedit, summary="editors: GEdit-Bench in English (or gedit:cn, gedit:full), 11 task types")
    register("miniedit", _miniedit, summary="editors: MiniEdit (or miniedit:COUNT), whose truth is known")
    register("imagenhub", _imagenhub, summary="ImagenHub, text-guided (or imagenhub:Mask-Guided_IE): ratings of people")
