"""The encoder tape on its own: what is found, what is played back, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.errors import ReplayError
from editr1_plugins.training.tape import EncoderTape, encoder_sites, patched


class Encoder(torch.nn.Module):
    """Returns two entries, of which a pipeline reads one; counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)
        self.runs = 0

    def forward(self, x: torch.Tensor, scale: object = None, **_: object) -> dict[str, torch.Tensor]:
        self.runs += 1
        return {"read": self.inner(x), "unread": torch.zeros(1000)}


class Posterior:
    def __init__(self, mean: torch.Tensor) -> None:
        self.mean = mean

    def mode(self) -> torch.Tensor:
        return self.mean

    def sample(self, generator: object = None) -> torch.Tensor:
        return self.mean + torch.randn(self.mean.shape)


class Autoencoder(torch.nn.Module):
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> object:
        posterior = Posterior(x * 2)
        return SimpleNamespace(latent_dist=posterior) if return_dict else (posterior,)


def pipeline(**components: torch.nn.Module) -> SimpleNamespace:
    return SimpleNamespace(components={"transformer": torch.nn.Linear(2, 2), **components})


def test_sites_are_found_outside_the_denoiser():
    encoder = Encoder()
    encoder.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    pipe = pipeline(text_encoder=encoder, vae=Autoencoder(), tokenizer=object())
    assert [site.name for site in encoder_sites(pipe)] == [
        "text_encoder.forward",
        "text_encoder.inner.forward",
        "text_encoder.blocks.0.forward",
        "vae.encode",
    ]


def test_a_call_with_the_same_content_is_played_back():
    encoder, tape = Encoder(), EncoderTape()
    with tape.attached(pipeline(text_encoder=encoder)) as same:
        assert same is tape
        first = encoder(torch.ones(1, 2))["read"]
    with tape.attached(pipeline(text_encoder=encoder)):
        again = encoder(torch.ones(1, 2))["read"]  # another tensor of the same content
        other = encoder(torch.zeros(1, 2))["read"]
    assert again is first
    assert not first.requires_grad
    assert not torch.equal(other, first)
    assert (encoder.runs, tape.misses, tape.plays, len(tape)) == (2, 2, 1, 2)


def test_only_what_was_read_is_kept():
    encoder, tape = Encoder(), EncoderTape()
    with tape.attached(pipeline(text_encoder=encoder)):
        _ = encoder(torch.ones(1, 2))["read"]
    assert tape.kept_bytes == 2 * 4
    with tape.attached(pipeline(text_encoder=encoder)):
        output = encoder(torch.ones(1, 2))
        with pytest.raises(ReplayError, match="unread"):
            output["unread"]
    tape.clear()
    assert (len(tape), tape.kept_bytes) == (0, 0)


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_posterior_gives_its_mode_where_a_sample_is_asked_for(return_dict):
    vae, tape = Autoencoder(), EncoderTape()
    with tape.attached(pipeline(vae=vae)):
        output = vae.encode(torch.ones(2), return_dict=return_dict)
        posterior = output.latent_dist if return_dict else output[0]
        sample = posterior.sample(torch.Generator())
        sample.mul_(7)  # a pipeline that scales it in place harms nothing
        assert torch.equal(posterior.sample(), torch.full((2,), 2.0))
        assert torch.equal(posterior.mean, torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(1, 2), torch.zeros(2, 1)),
        (np.zeros(2), np.ones(2)),
        (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red")),
        ([1, 2], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        ({"a": 1}, {"b": 1}),
        (True, 1),
        (torch.float16, torch.bfloat16),
    ],
)
def test_different_content_is_told_apart(one, other):
    encoder, tape = Encoder(), EncoderTape()
    with tape.attached(pipeline(text_encoder=encoder)):
        for value in (one, other, one):
            encoder(torch.ones(1, 2), value)
    assert (tape.misses, tape.plays) == (2, 1)


def test_what_has_no_content_to_go_by_is_never_played_back():
    encoder, tape = Encoder(), EncoderTape()
    with tape.attached(pipeline(text_encoder=encoder)):
        for _ in range(2):
            encoder(torch.ones(1, 2), object())
    assert (encoder.runs, tape.plays, len(tape)) == (2, 0, 0)


def test_generators_are_not_content():
    encoder, tape = Encoder(), EncoderTape()
    with tape.attached(pipeline(text_encoder=encoder)):
        for seed in range(2):
            encoder(torch.ones(1, 2), generator=torch.Generator().manual_seed(seed))
    assert (tape.misses, tape.plays) == (1, 1)


def test_a_network_in_the_loop_is_no_encoder():
    encoder, tape = Encoder(), EncoderTape()
    for _ in range(2):
        with tape.attached(pipeline(controlnet=encoder)):
            for step in range(3):
                encoder(torch.ones(1, 2))
                if step == 0:
                    tape.loop_begins()
    # Taped in the first step of the first run only, and forgotten as soon as the loop shows what it is.
    assert (tape.misses, tape.plays, len(tape)) == (1, 0, 0)
    assert encoder.runs == 6


def test_a_write_into_an_output_is_found():
    encoder, tape = Encoder(), EncoderTape()
    with (
        pytest.raises(ReplayError, match=r"writes into what text_encoder.forward returned"),
        tape.attached(pipeline(text_encoder=encoder)),
    ):
        encoder(torch.ones(1, 2))["read"].add_(1)


def test_instances_are_put_back_after_an_error():
    encoder, vae, tape = Encoder(), Autoencoder(), EncoderTape()
    before = [dict(vars(part)) for part in (encoder, encoder.inner, vae)]
    with pytest.raises(TypeError), tape.attached(pipeline(text_encoder=encoder, vae=vae)):
        encoder()
    assert [dict(vars(part)) for part in (encoder, encoder.inner, vae)] == before


def test_patching_restores_exactly_what_was_there():
    owner = SimpleNamespace(own=1)
    with patched(owner, "own", 2), patched(owner, "new", 3):
        assert vars(owner) == {"own": 2, "new": 3}
    assert vars(owner) == {"own": 1}
