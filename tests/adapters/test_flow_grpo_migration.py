"""`integrations/flow_grpo/migrate.py` on a small configuration in the host's shape (its own: test_migrate.py there)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "integrations" / "flow_grpo"

BASE = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.update(dict(seed=42, logdir="logs", run_name="", num_checkpoint_limit=5, mixed_precision="bf16",
        allow_tf32=True, use_lora=True, save_freq=30, eval_freq=10, save_dir="out", per_prompt_stat_tracking=True,
        num_epochs=100, resolution=512, dataset="edits", debug=False))
    config.pretrained = ml_collections.ConfigDict(dict(model="black-forest-labs/FLUX.1-Kontext-dev"))
    config.sample = ml_collections.ConfigDict(dict(num_steps=6, eval_num_steps=28, guidance_scale=2.5,
        train_batch_size=3, num_image_per_prompt=4, test_batch_size=2, num_batches_per_epoch=4, global_std=True,
        noise_level=0.9, same_latent=False, sde_window_size=2))
    config.train = ml_collections.ConfigDict(dict(batch_size=3, use_8bit_adam=False, learning_rate=3e-4,
        adam_beta1=0.9, adam_beta2=0.999, adam_weight_decay=1e-4, adam_epsilon=1e-8, gradient_accumulation_steps=2,
        max_grad_norm=1.0, num_inner_epochs=1, adv_clip_max=5, clip_range=1e-4, beta=0.0, lora_path=None, ema=True,
        timestep_fraction=0.99))
    config.reward_fn = {"geneval": 1.0}
    return config
"""

NAMED = """
import imp, os
base = imp.load_source("base", os.path.join(os.path.dirname(__file__), "base.py"))

def small():
    gpu_number = 2
    return base.get_config()

def odd():
    gpu_number = 2
    config = base.get_config()
    config.train.brand_new = 7
    config.train.lora_path = "first.safetensors"
    return config

def another():
    gpu_number = 2
    config = base.get_config()
    config.pretrained.model = "stabilityai/stable-diffusion-3.5-medium"
    return config

def unsaid():
    return base.get_config()
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("migrate")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "named.py").write_text(NAMED)
    return tmp_path / "named.py"


def test_a_configuration_becomes_yaml_that_our_parser_takes(
    tool: Any, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from editr1_plugins.cli.grpo_arguments import parse_arguments

    assert tool.main([f"{config}:small", "--gpus", "1", "--verifier", "measure"]) == 0
    (tmp_path / "ours.yaml").write_text(capsys.readouterr().out)
    found = parse_arguments(["--config", str(tmp_path / "ours.yaml"), "--use_cpu", "true"])
    ours = found.config
    assert (found.recipe, found.script.verifier) == ("kontext", "measure")
    assert ours.generation_batch_size == 3 * 4 * 2  # edits of an epoch on their two processes
    assert ours.steps_per_generation == 2 * ours.gradient_accumulation_steps  # two updates to an epoch
    assert (ours.save_steps, ours.eval_steps, ours.max_steps) == (60, 20, 200)
    assert list(ours.trainable_range) == [0, 1, 2, 3, 4]
    assert ours.window is None
    assert (ours.scale_rewards, ours.lr_scheduler_type, ours.adam_epsilon) == ("batch", "constant", 1e-8)
    assert ours.ema_decay == pytest.approx(0.9 ** (1 / 8), abs=2e-4)
    assert "proj_out" not in found.model.lora_target_modules


def test_no_field_is_dropped_silently(tool: Any, config: Path) -> None:
    fields, gpus = tool.read_config(config, "odd")
    made = tool.migrate(fields, gpus)
    assert made.unknown == {"train.brand_new": 7}
    assert {"sample.sde_window_size", "debug"} <= set(made.unread)
    text = made.yaml("odd")
    for name in fields:
        assert name in text, name
    assert made.implied == {"per_prompt_stat_tracking": True, "run_name": ""}
    assert "train.lora_path = first.safetensors" in made.missing
    assert "reward_fn.geneval = 1.0" in made.missing
    assert yaml.safe_load(text) == made.values()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("another", [], "only FLUX.1 Kontext and Qwen-Image-Edit"),
        ("nothing", [], "has no function 'nothing'"),
        ("unsaid", [], "--host-gpus"),
        ("small", ["--gpus", "7"], "choose another --gpus"),
    ],
)
def test_what_cannot_be_converted_says_why(
    tool: Any, config: Path, capsys: pytest.CaptureFixture[str], name: str, more: list[str], said: str
) -> None:
    assert tool.main([f"{config}:{name}", *more]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert not printed.out


def test_stand_in_modules_do_not_stay(tool: Any, config: Path) -> None:
    before = {name: sys.modules.get(name) for name in ("imp", "ml_collections")}
    tool.read_config(config, "small")
    assert {name: sys.modules.get(name) for name in before} == before
