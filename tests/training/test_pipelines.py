"""Any pipeline of diffusers through one seam: each trains a step exactly, or is refused with the true reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch

from editr1_plugins.errors import ReplayError
from editr1_plugins.testing.pipelines import TINY_PIPELINES, lora_parameters, picture, tiny_pipeline
from editr1_plugins.training.pipelines import accepted_arguments
from editr1_plugins.training.preflight import preflight
from editr1_plugins.training.rollout import record, visit
from editr1_plugins.training.tape import EncoderTape

#: The editors that people train, with two relatives that add noise to the source or blend it in.
NAMED = (
    "kontext",
    "kontext_modular",
    "qwen_edit",
    "qwen_edit_plus",
    "qwen_edit_plus_two_sources",
    "klein",
    "flux_img2img",
    "flux_inpaint",
)
REFUSED = {
    "klein_kv": "keeps state between steps",
    "flux_control_inpaint": "blends the noised source into them after the step, in another layout",
}
FURTHER = [name for name in TINY_PIPELINES if name not in NAMED and name not in REFUSED]

VARIANTS = {
    "plain": {},
    "guided, checkpointing, not square": {"guided": True, "checkpointing": True, "wide": True},
    "bf16": {"guided": True, "dtype": torch.bfloat16},
}


#: Qwen's pipelines encode about a megapixel whatever the size; by default one of them runs, and one with two sources.
LONGER = {
    *((name, "plain") for name in NAMED if name.startswith("qwen")),
    *(("qwen_edit", variant) for variant in VARIANTS),
    ("qwen_edit_plus_two_sources", "guided, checkpointing, not square"),
}


@dataclass
class Rented:
    """A pipeline that several tests use one after the other; encoders run once for all of them."""

    pipe: object
    tape: EncoderTape = field(default_factory=EncoderTape)


@cache
def rented(name, dtype):
    return Rented(tiny_pipeline(name, dtype=dtype)[0])


@pytest.fixture(autouse=True, scope="module")
def given_back():
    yield
    rented.cache_clear()


def call_of(name, guided=False, wide=False, steps=3):
    call = dict(_calls(name, guided))
    call["num_inference_steps"] = steps
    if wide and "image" in call and not isinstance(call["image"], list):
        call["image"] = picture((96, 64))
    if wide:
        call["width"] = call["width"] * 3 // 2
        if "max_area" in call:
            call["max_area"] = call["width"] * call["height"]
    if wide and "mask_image" in call:
        call["mask_image"] = call["mask_image"].resize((96, 64))
    return call


@cache
def _calls(name, guided):
    return tiny_pipeline(name, guided=guided, lora_rank=0)[1]


def replay(pipe, rollout, rows, found):
    """Adds the gradient of minus the sum of these rows' log-probabilities; appends |ratio - 1|."""
    steps = [step.rows(rows) for step in rollout.transitions]

    def on_velocity(index, velocity):
        step = steps[index]
        log_prob = step.noise.log_prob(step.x, velocity, step.x_next)
        found.append(((log_prob.detach() - step.log_prob).exp() - 1).abs().max().item())
        (-log_prob.sum()).backward()

    visit(pipe, rollout, [step.visit() for step in steps], on_velocity)


def gradient(pipe):
    parts = [p.grad.double().flatten() for p in lora_parameters(pipe).values() if p.grad is not None]
    for p in lora_parameters(pipe).values():
        p.grad = None
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(name, variant, marks=[pytest.mark.slow] * ((name, variant) in LONGER))
        for name in NAMED
        for variant in VARIANTS
    ],
)
def test_ratios_are_one_and_gradients_equal_under_any_split(name, variant):
    options = VARIANTS[variant]
    found = rented(name, options.get("dtype"))
    pipe, tape = found.pipe, found.tape
    if options.get("checkpointing"):
        pipe.transformer.enable_gradient_checkpointing()
        pipe.transformer.train()
    try:
        call = call_of(name, options.get("guided", False), options.get("wide", False))
        rollout = record(pipe, call, seeds=(10, 11, 12), window=(0, 1), tape=tape)
        misses = tape.misses
        error, split = [], []
        replay(pipe, rollout, slice(None), error)
        whole = gradient(pipe)
        for rows in (slice(0, 1), slice(1, 3)):
            replay(pipe, rollout, rows, split)
        parts = gradient(pipe)
    finally:
        pipe.transformer.disable_gradient_checkpointing()
        pipe.transformer.eval()
    assert max(error) <= 1e-6
    assert tape.misses == misses  # no encoder in replay
    assert whole.norm() > 0
    exact = "dtype" not in options
    assert max(split) <= (1e-6 if exact else 2e-2)
    assert ((parts - whole).norm() / whole.norm()).item() <= (1e-5 if exact else 5e-2)


def test_a_source_that_is_not_square_keeps_its_shape():
    pipe = rented("kontext", None).pipe
    rollout = record(pipe, call_of("kontext", wide=True), seeds=(1,), window=())
    assert tuple(rollout.images.shape[-2:]) == (32, 48)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused_with_the_true_reason(name):
    pipe = rented(name, None).pipe
    with pytest.raises(ReplayError, match=REFUSED[name]):
        preflight(pipe, call_of(name), lora_parameters(pipe).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_further_pipelines_pass_the_preflight(name):
    pipe = rented(name, None).pipe
    report = preflight(pipe, call_of(name, guided=True, steps=4), lora_parameters(pipe).values())
    assert max(report.log_prob_error, report.row_error) <= 1e-6
    assert max(report.row_gap, report.step_gap) <= 1e-5
    assert report.encoder_calls > 0
    assert report.rows_per_call == (1 if name == "sd3_img2img" else None)  # it reads one image per generator


def test_some_thirty_configurations_are_covered():
    assert len(TINY_PIPELINES) >= 30


def test_a_modular_pipeline_tells_its_arguments_by_its_blocks():
    accepted = accepted_arguments(rented("kontext_modular", None).pipe)
    assert accepted["num_images_per_prompt"] == 1
    assert {"image", "prompt", "height", "num_inference_steps"} <= accepted.keys()


def test_a_modular_pipelines_blocks_are_what_they_were():
    pipe = rented("kontext_modular", None).pipe
    classes = [type(block) for block in pipe._blocks.sub_blocks.values()]
    rollout = record(pipe, call_of("kontext_modular"), seeds=(1,), window=(0,))
    replay(pipe, rollout, slice(None), [])
    gradient(pipe)
    assert [type(block) for block in pipe._blocks.sub_blocks.values()] == classes
    assert torch.is_grad_enabled()
