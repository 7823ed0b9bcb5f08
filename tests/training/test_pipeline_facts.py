"""`register_pipelines`: what a package says about a pipeline class is heeded, and checked."""

from __future__ import annotations

from types import ModuleType

import diffusers
import pytest
import torch

import editr1_plugins.training.pipelines as pipelines
from editr1_plugins import hookimpl
from editr1_plugins.errors import ConfigError, PluginError, ReplayError
from editr1_plugins.plugins import Origin, Registry, registry
from editr1_plugins.testing.pipelines import lora_parameters, tiny_pipeline
from editr1_plugins.training.pipelines import PipelineFacts, facts_of, image_argument, rows_argument
from editr1_plugins.training.preflight import preflight


class HookedKontextPipeline(diffusers.FluxKontextPipeline):
    """Reads its text encoder through a forward hook, as some pipelines do; a played-back output triggers no hook."""

    def _get_t5_prompt_embeds(self, prompt, num_images_per_prompt=1, max_sequence_length=512, **_):
        return self.read_layer(prompt, max_sequence_length).repeat(num_images_per_prompt, 1, 1)

    def read_layer(self, prompt, length):
        seen = []
        layer = self.text_encoder_2.encoder.final_layer_norm
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            self.text_encoder_2(self.tokenizer_2(prompt, padding="max_length", max_length=length).input_ids)
        finally:
            handle.remove()
        return seen[0]


@pytest.fixture
def installed(monkeypatch):
    """Adds a plugin that registers these facts, as a package's entry point would."""

    def install(name, facts):
        plugin = ModuleType("acme_editr1")

        @hookimpl
        def register_pipelines(register):
            register(name, lambda: facts, summary="a pipeline of ours")

        plugin.register_pipelines = register_pipelines
        found = Registry(registry().core)
        found.entries = registry().entries
        found.load(Origin(plugin="acme", dist="acme"), lambda: plugin)
        assert found.failures == ()
        monkeypatch.setattr(pipelines, "registry", lambda: found)

    return install


def hooked():
    pipe, call = tiny_pipeline("kontext")
    pipe.__class__ = HookedKontextPipeline
    return pipe, call


def test_an_encoder_that_hooks_internals_needs_an_entry(installed):
    pipe, call = hooked()
    with pytest.raises(ReplayError, match="replay fails: IndexError"):
        preflight(pipe, call, lora_parameters(pipe).values())
    installed("HookedKontextPipeline", PipelineFacts(encoders=("read_layer",)))
    runs = []
    pipe.text_encoder_2.register_forward_hook(lambda *_: runs.append(1))
    report = preflight(pipe, call, lora_parameters(pipe).values())
    assert report.log_prob_error <= 1e-6
    assert len(runs) == 1  # the whole method is played back
    assert "read_layer" not in vars(pipe)


def test_a_subclass_has_the_facts_of_its_class(installed):
    pipe, _ = hooked()
    facts = PipelineFacts(rows="copies", image="picture")
    installed("FluxKontextPipeline", facts)
    assert facts_of(pipe) == facts
    installed("HookedKontextPipeline", PipelineFacts())
    assert facts_of(pipe) == PipelineFacts()


def test_registered_arguments_are_used(installed):
    pipe, _ = tiny_pipeline("kontext")
    assert (rows_argument(pipe, 2), image_argument(pipe)) == ({"num_images_per_prompt": 2}, "image")
    installed("FluxKontextPipeline", PipelineFacts(rows="max_sequence_length", image="ip_adapter_image"))
    assert (rows_argument(pipe, 2), image_argument(pipe)) == ({"max_sequence_length": 2}, "ip_adapter_image")
    installed("FluxKontextPipeline", PipelineFacts(rows="copies", image="picture"))
    with pytest.raises(ReplayError, match="makes one row a call"):
        rows_argument(pipe, 2)
    with pytest.raises(ConfigError, match="takes no source image"):
        image_argument(pipe)


def test_a_pipeline_may_be_refused_by_its_entry(installed):
    pipe, call = tiny_pipeline("kontext")
    installed("FluxKontextPipeline", PipelineFacts(refused="its sampler is secret"))
    with pytest.raises(ReplayError, match="FluxKontextPipeline cannot be trained exactly: its sampler is secret"):
        preflight(pipe, call, lora_parameters(pipe).values())


def test_wrong_entries_are_named(installed):
    pipe, _ = tiny_pipeline("kontext")
    installed("FluxKontextPipeline", {"rows": "copies"})
    with pytest.raises(PluginError, match="registered with a dict, not with PipelineFacts"):
        facts_of(pipe)
    installed("FluxKontextPipeline", PipelineFacts(encoders=("no_such_method",)))
    with pytest.raises(PluginError, match="encoders that it does not have: no_such_method"):
        facts_of(pipe)


def test_our_own_entries_fit_their_pipelines():
    for entry in registry().of("pipeline"):
        cls = getattr(diffusers, entry.name)
        assert all(callable(getattr(cls, method)) for method in entry.factory().encoders)


def test_a_pipeline_made_from_text_alone_takes_no_source():
    pipe, _ = tiny_pipeline("flux")
    with pytest.raises(ConfigError, match="FluxPipeline takes no source image"):
        image_argument(pipe)


def test_the_device_is_the_denoisers_while_encoders_are_elsewhere():
    """Pipelines take the device of their first network, which may be an encoder that waits on another device."""
    pipe, _ = tiny_pipeline("kontext")
    for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.to("meta")  # any second device
    assert pipe._execution_device.type == "meta"
    with pipelines.on_denoisers_device(pipe) as device:
        assert (device.type, pipe._execution_device.type, pipe.device.type) == ("cpu", "cpu", "cpu")
        assert type(pipe).__name__ == "FluxKontextPipeline"
    assert type(pipe) is diffusers.FluxKontextPipeline
    assert isinstance(device, torch.device)
