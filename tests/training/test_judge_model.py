"""A LoRA merged for serving gives what base and adapter give; the processor of a judge."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2_5_VLForConditionalGeneration

from editr1_plugins.backends.chat import ChatRequest, Sampling
from editr1_plugins.backends.local_model import LocalModel
from editr1_plugins.backends.transformers import TransformersBackend
from editr1_plugins.errors import ConfigError
from editr1_plugins.plugins import resolve
from editr1_plugins.testing.judges import save_tiny_judge, tiny_traces
from editr1_plugins.training.judge_model import LORA_TARGETS, judge_processor, limit_pixels, merge_adapter
from editr1_plugins.training.trace_data import read_principles
from editr1_plugins.types import Edit
from editr1_plugins.verifiers.prompting import judge_request


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_judge(tmp_path_factory.mktemp("judge"), initializer_range=0.1))


@pytest.fixture(scope="module")
def adapter(judge: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapter")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(judge)
    torch.manual_seed(0)
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=LORA_TARGETS, init_lora_weights=False))
    lora.save_pretrained(folder)
    judge_processor(judge, max_pixels=1024).save_pretrained(folder)
    return str(folder)


def asked() -> ChatRequest:
    row = tiny_traces(1)[0]
    edit = Edit(source=row["source"], edited=row["edited"], instruction=row["instruction"])
    return judge_request(edit, read_principles(row["principles"]))


def logits(backend: TransformersBackend) -> Any:
    live: LocalModel = backend._loaded()
    with torch.inference_mode():
        return live.model(**live.collate([live.encode(asked())])).logits


def test_the_merged_folder_is_a_judge_with_the_same_logits(judge: str, adapter: str, tmp_path: Path) -> None:
    found = merge_adapter(judge, adapter, tmp_path / "merged")
    assert found["adapter_norm"] > 0
    assert found["rounding_error"] == 0, "float32 in, float32 out"
    base = logits(TransformersBackend(judge, device="cpu"))
    unmerged = logits(TransformersBackend(judge, adapter=adapter, device="cpu"))
    merged = logits(TransformersBackend(str(tmp_path / "merged"), device="cpu"))
    assert (unmerged - base).abs().max() > 0.1
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-4)
    verifier = resolve("verifier", f"transformers:{tmp_path / 'merged'}")
    assert verifier.backend.complete([asked()], Sampling(max_tokens=2))[0][0].failure is None


def test_its_files_are_those_of_the_base_with_the_limit_of_training(judge: str, adapter: str, tmp_path: Path) -> None:
    merge_adapter(judge, adapter, tmp_path / "merged")
    sizes = {}
    for name, folder in (("base", Path(judge)), ("merged", tmp_path / "merged")):
        described = json.loads((folder / "processor_config.json").read_text())
        sizes[name] = described["image_processor"].pop("size")
    assert sizes["base"] == {"shortest_edge": 64, "longest_edge": 4096}
    assert sizes["merged"] == {"shortest_edge": 64, "longest_edge": 1024}
    assert judge_processor(str(tmp_path / "merged")).image_processor.size["longest_edge"] == 1024
    names = set(json.loads((tmp_path / "merged" / "config.json").read_text()))
    assert names == set(json.loads((Path(judge) / "config.json").read_text()))


def test_the_older_form_of_the_limit_is_written_too(judge: str, adapter: str, tmp_path: Path) -> None:
    """Qwen2.5-VL's published files say min_pixels and max_pixels."""
    import shutil

    base = Path(shutil.copytree(judge, tmp_path / "base"))
    described = json.loads((base / "processor_config.json").read_text())["image_processor"]
    (base / "processor_config.json").unlink()
    del described["size"]
    (base / "preprocessor_config.json").write_text(json.dumps({**described, "min_pixels": 64, "max_pixels": 4096}))
    merge_adapter(str(base), adapter, tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / "preprocessor_config.json").read_text())
    assert written["max_pixels"] == 1024
    assert written["size"] == {"shortest_edge": 64, "longest_edge": 1024}


def test_rounding_to_bfloat16_is_told(judge: str, adapter: str, tmp_path: Path) -> None:
    large = merge_adapter(judge, adapter, tmp_path / "large", dtype="bfloat16")
    assert 0 < large["rounding_error"] < 0.2
    weights = Path(adapter) / "adapter_model.safetensors"
    small = tmp_path / "small"
    small.mkdir()
    from safetensors.torch import load_file, save_file

    save_file({name: each * 0.02 for name, each in load_file(weights).items()}, small / weights.name)
    (small / "adapter_config.json").write_text((Path(adapter) / "adapter_config.json").read_text())
    found = merge_adapter(judge, str(small), tmp_path / "merged", dtype="bfloat16")
    assert found["rounding_error"] > 0.5, "most of a small adapter is lost"
    merged = TransformersBackend(str(tmp_path / "merged"), device="cpu")
    assert merged._loaded().model.dtype == torch.bfloat16


def test_what_cannot_be_merged_is_refused(judge: str, adapter: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(ConfigError, match="is there already"):
        merge_adapter(judge, adapter, tmp_path / "there")
    with pytest.raises(ConfigError, match="is no LoRA adapter"):
        merge_adapter(judge, judge, tmp_path / "new")
    with pytest.raises(ConfigError, match="none of torch's floating-point types"):
        merge_adapter(judge, adapter, tmp_path / "new", dtype="int8")
    assert not (tmp_path / "new").exists()


def test_a_processor_without_such_a_limit() -> None:
    fixed = SimpleNamespace(image_processor=SimpleNamespace(size={"height": 224, "width": 224}))
    with pytest.raises(ConfigError, match="has no such limit"):
        limit_pixels(fixed, 1024)
