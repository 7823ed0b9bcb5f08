"""Our own parts, added through the same doors as everybody's; each factory imports what it builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from .types import Decomposer, Verifier

__all__ = ["register_algorithms", "register_decomposers", "register_verifiers"]


def _measure() -> Verifier:
    from .verifiers.measure import MeasureVerifier

    return MeasureVerifier()


def _openai(argument: str) -> Verifier:
    from .verifiers.openai import OpenAIVerifier

    return OpenAIVerifier.from_spec(argument)


def _transformers(argument: str) -> Verifier:
    from .verifiers.transformers import TransformersVerifier

    return TransformersVerifier.from_spec(argument)


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
    register("transformers", _transformers, summary="transformers:PATH_OR_ID, a VLM in this process")


@hookimpl
def register_decomposers(register: Register) -> None:
    register("first", _first, summary="first:A|B, the first of several decomposers that has an answer")
    register("rules", _rules, summary="reads common instructions with rules; no model")
    register(
        "vlm",
        _vlm,
        summary="vlm:MODEL@URL or vlm:transformers:PATH_OR_ID, few-shot prompts to a VLM",
    )


@hookimpl
def register_algorithms(register: Register) -> None:
    register("flow_grpo", _flow_grpo, summary="clipped policy gradient with exact KL (arXiv 2505.05470)")
    register("nft", _nft, summary="contrast of noised results, no likelihoods (arXiv 2509.16117)")
