"""The preflight passes what replays exactly and refuses, with the true reason, what does not."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    FluxKontextPipeline,
    UniPCMultistepScheduler,
)
from peft import LoraConfig

from editr1_plugins.errors import ConfigError, ReplayError
from editr1_plugins.testing.pipelines import lora_parameters, tiny_pipeline
from editr1_plugins.training.preflight import preflight, require_ratio_of_one


def check(pipe, call, **options):
    return preflight(pipe, call, list(lora_parameters(pipe).values()), **options)


@pytest.mark.parametrize("name", ["kontext", "flux_img2img", "flux_inpaint", "klein"])
def test_what_replays_exactly_passes(name):
    pipe, call = tiny_pipeline(name, guided=True)
    parameters = lora_parameters(pipe)
    next(iter(parameters.values())).grad = mark = torch.ones_like(next(iter(parameters.values())))
    state = torch.get_rng_state()
    report = check(pipe, call)
    assert report.pipeline == type(pipe).__name__
    assert max(report.log_prob_error, report.row_error) <= 1e-6
    assert max(report.row_gap, report.step_gap) <= 1e-5
    assert report.encoder_calls > 0
    assert report.taped_bytes > 0
    assert report.enters_at_once
    grads = [p.grad for p in parameters.values()]
    assert grads[0] is mark
    assert all(grad is None for grad in grads[1:])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options", [{"sampler": "cps"}, {"sampler": "dance", "noise_level": 0.3}, {"rows": 1}], ids=str
)
def test_other_samplers_and_single_rows_pass(options):
    pipe, call = tiny_pipeline()
    assert check(pipe, call, **options).log_prob_error <= 1e-6


def test_lower_precision_and_given_sigmas_pass():
    pipe, call = tiny_pipeline(dtype=torch.bfloat16)
    del call["num_inference_steps"]
    assert check(pipe, {**call, "sigmas": [1.0, 0.8, 0.5, 0.2]}).log_prob_error <= 1e-6


def refusal(pipe, call, trainable=None, **options):
    trainable = list(lora_parameters(pipe).values()) if trainable is None else trainable
    with pytest.raises(ReplayError) as caught:
        preflight(pipe, call, trainable, **options)
    return str(caught.value)


def test_dropout_is_refused():
    pipe, call = tiny_pipeline(lora_rank=0)
    pipe.transformer.add_adapter(LoraConfig(r=2, lora_dropout=0.1, target_modules=["to_q"]))
    pipe.transformer.train()
    assert "dropout is active in transformer_blocks.0.attn.to_q.lora_dropout" in refusal(pipe, call)
    pipe.transformer.eval()
    check(pipe, call)


def test_a_functional_dropout_is_refused_for_its_global_draws():
    pipe, call = tiny_pipeline()
    pipe.transformer.register_forward_hook(lambda *_: (torch.nn.functional.dropout(_[2][0], 0.1),))
    assert "global random generator" in refusal(pipe, call)


@pytest.mark.parametrize(
    "scheduler", [FlowMatchHeunDiscreteScheduler, type("Own", (FlowMatchEulerDiscreteScheduler,), {})]
)
def test_other_schedulers_are_refused(scheduler):
    pipe, call = tiny_pipeline()
    pipe.scheduler = scheduler()
    assert f"the pipeline's scheduler is a {scheduler.__name__}" in refusal(pipe, call)


def test_a_scheduler_that_draws_noise_itself_is_refused():
    pipe, call = tiny_pipeline()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, stochastic_sampling=True)
    assert "stochastic_sampling" in refusal(pipe, call)


def test_a_key_value_cache_is_refused():
    pipe, call = tiny_pipeline("klein_kv")
    message = refusal(pipe, call)
    assert message.startswith("Flux2KleinKVPipeline cannot be trained exactly")
    assert "keeps state between steps (a K/V cache, for instance)" in message


def test_a_detached_key_value_cache_is_refused_though_its_ratio_is_one():
    """What the ratio cannot see: values are right, the gradient through the cache is missing."""
    pipe, call = tiny_pipeline("klein_kv")
    original = pipe.transformer.forward

    def forward(*args, **kwargs):
        found = original(*args, **kwargs)
        if kwargs.get("kv_cache_mode") == "extract":
            cache = found[1]
            for layer in [*cache.double_block_caches, *cache.single_block_caches]:
                layer.store(*(part.detach() for part in layer.get()))
        return found

    pipe.transformer.forward = forward
    message = refusal(pipe, call)
    assert "gradients of the steps do not add up" in message


def test_a_cache_across_steps_is_refused():
    pipe, call = tiny_pipeline()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    assert "call disable_cache()" in refusal(pipe, call)


def test_rows_that_see_each_other_are_refused():
    pipe, call = tiny_pipeline()
    pipe.transformer.register_forward_hook(lambda *_: (_[2][0] - _[2][0].mean(0, keepdim=True),))
    assert "rows are not independent" in refusal(pipe, call)


def test_a_condition_drawn_anew_is_refused():
    pipe, call = tiny_pipeline()
    original = pipe.encode_prompt

    def drawn(*args, **kwargs):
        tokens, pooled, ids = original(*args, **kwargs)
        return tokens + torch.randn(tokens.shape, generator=drawing), pooled, ids

    drawing = torch.Generator().manual_seed(3)
    pipe.encode_prompt = drawn
    assert "finds other log-probabilities than sampling did" in refusal(pipe, call)


def test_steps_that_depend_on_their_position_are_refused():
    pipe, call = tiny_pipeline()
    calls = []

    def first_is_different(_, args, output):
        calls.append(1)
        return (output[0] * (1.5 if pipe._first else 1.0),)

    class Counting(type(pipe)):
        def progress_bar(self, *args, **kwargs):
            self._first = True
            return super().progress_bar(*args, **kwargs)

    pipe.__class__ = Counting
    pipe.transformer.register_forward_hook(first_is_different)
    pipe.transformer.register_forward_hook(lambda *_: setattr(pipe, "_first", False))
    message = refusal(pipe, {**call}, rows=1)
    assert "what a step computes depends on the steps before it" in message


def test_parameters_outside_the_denoiser_are_refused():
    pipe, call = tiny_pipeline()
    encoder = pipe.text_encoder_2.requires_grad_(True)
    message = refusal(pipe, call, list(encoder.parameters()))
    assert "parameters of text_encoder_2 are to be trained, but only the denoiser can be" in message
    assert "another model" in refusal(pipe, call, list(torch.nn.Linear(1, 1).parameters()))


def test_nothing_to_train_is_refused():
    pipe, call = tiny_pipeline()
    assert "no parameter to train" in refusal(pipe, call, [])
    pipe.transformer.requires_grad_(False)
    assert "none requires grad" in refusal(pipe, call)


def test_parameters_that_no_gradient_reaches_are_refused():
    pipe, call = tiny_pipeline()
    unused = torch.nn.Parameter(torch.zeros(1))
    pipe.transformer.register_parameter("unused", unused)
    assert "no gradient reaches" in refusal(pipe, call, [unused])


def test_an_offloaded_denoiser_is_refused():
    from accelerate import cpu_offload

    pipe, call = tiny_pipeline()
    cpu_offload(pipe.transformer, execution_device=torch.device("cpu"))
    assert "the denoiser is offloaded between calls; keep it on its device" in refusal(pipe, call)


def test_what_fails_in_the_pipeline_is_quoted():
    pipe, call = tiny_pipeline()
    message = refusal(pipe, {**call, "max_sequence_length": 100_000})
    assert "sampling 2 rows fails, and so does 1 row" in message
    assert "max_sequence_length" in message


def test_bad_sizes_are_refused():
    pipe, call = tiny_pipeline()
    for options in ({"rows": 0}, {"steps": 2}):
        with pytest.raises(ConfigError, match="at least 1 row and 3 steps"):
            check(pipe, call, **options)


class EarlyGuidance(FluxKontextPipeline):
    """Guidance in the first five steps of the loop only, as skip-layer guidance and the like have it."""

    def progress_bar(self, *args, **kwargs):
        self.step = 0
        return super().progress_bar(*args, **kwargs)


def early_guidance():
    pipe, call = tiny_pipeline(steps=12)
    pipe.__class__ = EarlyGuidance

    def guide(module, args, output):
        pipe.step += 1
        return (output[0] * (1.5 if 4 < pipe.step <= 8 else 1.0),)

    pipe.transformer.register_forward_hook(guide)
    return pipe, call


def test_what_holds_for_a_part_of_the_steps_is_found_where_training_samples():
    pipe, call = early_guidance()
    check(pipe, call)  # three steps do not reach it
    assert "or on its place in the loop" in refusal(pipe, call, window=range(11))


def test_a_window_of_the_runs_own_length_passes():
    pipe, call = tiny_pipeline(guided=True, steps=6)
    report = check(pipe, call, window=range(5))
    assert (report.steps, report.replayed) == (6, (0, 2, 4))
    assert report.log_prob_error <= 1e-6


def test_what_differs_is_named():
    pipe, call = tiny_pipeline()
    original = pipe.encode_prompt

    def drawn(*args, **kwargs):
        tokens, pooled, ids = original(*args, **kwargs)
        return tokens, pooled + float(type(pipe.scheduler).__name__ == "VisitScheduler"), ids

    pipe.encode_prompt = drawn
    assert "the denoiser is given another pooled_projections" in refusal(pipe, call)


def test_parameters_that_the_denoiser_does_not_use_are_reported():
    pipe, call = tiny_pipeline()
    unused = torch.nn.Parameter(torch.zeros(1))
    pipe.transformer.register_parameter("unused", unused)
    report = preflight(pipe, call, [*lora_parameters(pipe).values(), unused])
    assert report.unused == ("unused",)


def test_a_gradient_that_gets_lost_is_refused():
    pipe, call = tiny_pipeline()
    block = pipe.transformer.single_transformer_blocks[-1]
    original = pipe.transformer.forward

    def forward(*args, **kwargs):
        # Cut off in the pipeline's own calls (which ask for no dictionary and carry this mark), not in the network.
        block.proj_out.lora_A["default"].weight.requires_grad_(not pipe.cutting)
        return original(*args, **kwargs)

    pipe.cutting = False
    pipe.transformer.forward = forward
    check(pipe, call)

    class Cutting(type(pipe)):
        @property
        def interrupt(self):
            self.cutting = True
            return False

    pipe.__class__ = Cutting
    cut = [p for name, p in lora_parameters(pipe).items()]
    pipe.transformer.register_forward_hook(lambda *_: setattr(pipe, "cutting", False))
    assert "no gradient reaches" in refusal(pipe, call, cut)


def test_a_call_within_a_call_keeps_its_gradient():
    class Wrapped(FluxKontextPipeline):
        @torch.no_grad()
        def __call__(self, image=None, prompt=None, num_images_per_prompt=1, **options):
            return super().__call__(image, prompt, num_images_per_prompt=num_images_per_prompt, **options)

    pipe, call = tiny_pipeline()
    pipe.__class__ = Wrapped
    assert check(pipe, call).log_prob_error <= 1e-6


def test_one_row_a_call_is_found_out():
    pipe, call = tiny_pipeline("sd3_img2img")  # reads an image per generator, of which it has one
    report = check(pipe, call)
    assert (report.rows, report.rows_per_call) == (1, 1)
    assert "sampled and replayed one by one" in str(report)


def test_the_report_is_data():
    pipe, call = tiny_pipeline()
    report = check(pipe, call)
    data = json.loads(json.dumps(report.as_dict()))
    assert (data["passed"], data["pipeline"], data["replayed"]) == (True, "FluxKontextPipeline", [0, 1])
    assert "FluxKontextPipeline replays exactly (2 rows, 3 steps" in str(report)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
            "of order 2",
        ),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True), "a multistep solver"),
        (FlowMatchHeunDiscreteScheduler(), "evaluates the model twice per step"),
        (FlowMatchLCMScheduler(), "draws new noise in every step"),
        (DDIMScheduler(), "another kind of model \\(prediction_type='epsilon'\\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_solvers_are_refused_with_their_reason(scheduler, reason):
    pipe, call = tiny_pipeline()
    pipe.scheduler = scheduler
    message = refusal(pipe, call)
    assert re.search(reason, message)
    if "flow_shift" in scheduler.config and scheduler.config.flow_shift == 3.0:
        assert "pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3)" in message


def test_several_passes_and_several_sets_of_latents_are_refused():
    pipe, call = tiny_pipeline()
    base = type(pipe)

    class TwoStages(base):
        def __call__(self, **options):
            super().__call__(**options)
            return super().__call__(**options)

    class TwoSets(base):
        def prepare_latents(self, *args, **kwargs):
            self.sound = copy.deepcopy(self.scheduler)
            return super().prepare_latents(*args, **kwargs)

    for cls, reason in ((TwoStages, "denoises in several passes"), (TwoSets, "several sets of latents at once")):
        pipe.__class__ = type(cls.__name__, (cls,), {"__call__": with_rows(cls.__call__)})
        assert reason in refusal(pipe, call)


def with_rows(call):
    def named(self, num_images_per_prompt=1, num_inference_steps=3, **options):
        options |= {"num_images_per_prompt": num_images_per_prompt, "num_inference_steps": num_inference_steps}
        return call(self, **options)

    return named


def test_a_ratio_far_from_one_at_unchanged_weights_stops_the_run():
    require_ratio_of_one(1e-3)
    for error in (0.2, float("nan")):
        with pytest.raises(ReplayError, match="first replay of a rollout"):
            require_ratio_of_one(error)
