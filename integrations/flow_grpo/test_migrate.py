"""`migrate.py` on every Kontext and Qwen-Image-Edit configuration of a flow_grpo checkout (EDITR1_HOST_FLOW_GRPO)."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

HOSTS = [Path(folder) for folder in os.environ.get("EDITR1_HOST_FLOW_GRPO", "").split(os.pathsep) if folder]
CONFIGS = [folder / "config" / "grpo.py" for folder in HOSTS]
WITH_EDITING = [path for path in CONFIGS if path.is_file() and "Kontext" in path.read_text(encoding="utf-8")]
NAMES = (
    "counting_flux_kontext",
    "counting_qwenimage_edit",
    "counting_qwenimage_edit_fast",
    "counting_qwenimage_edit_8gpu",
)

if not WITH_EDITING:
    pytest.skip("set EDITR1_HOST_FLOW_GRPO to a checkout of flow_grpo 9745241", allow_module_level=True)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("migrate")


@pytest.mark.parametrize("path", WITH_EDITING, ids=str)
def test_these_are_all(tool: Any, path: Path) -> None:
    import ast

    functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    editors = []
    for name in functions:
        if name != "get_config":
            model = str(tool.read_config(path, name)[0]["pretrained.model"]).lower()
            editors += [name] if "kontext" in model or "edit" in model else []
    assert editors == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", WITH_EDITING, ids=str)
def test_every_editing_configuration_is_taken_by_our_parser(tool: Any, path: Path, name: str, tmp_path: Path) -> None:
    from editr1_plugins.cli.grpo_arguments import parse_arguments

    fields, gpus = tool.read_config(path, name)
    made = tool.migrate(fields, gpus, 1)
    (tmp_path / "ours.yaml").write_text(made.yaml(name))
    config = parse_arguments(["--config", str(tmp_path / "ours.yaml"), "--use_cpu", "true"]).config
    edits = fields["sample.train_batch_size"] * fields["sample.num_batches_per_epoch"] * gpus
    assert config.generation_batch_size == edits
    assert config.steps_per_generation == 2 * config.gradient_accumulation_steps
    assert not made.unknown
    if name.endswith("_fast"):
        assert (config.window, config.window_range) == (4, [0, 5])
    else:
        assert len(config.trainable_range) == fields["sample.num_steps"] - 1
    if "qwen" in name:
        assert config.true_cfg_scale == 4
        assert config.pipeline_kwargs == {"negative_prompt": " "}


@pytest.mark.parametrize("path", WITH_EDITING, ids=str)
def test_the_stand_in_reads_what_ml_collections_reads(tool: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ml_collections")
    real = [tool.read_config(path, name) for name in NAMES]
    find = tool.importlib.util.find_spec
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None if name == "ml_collections" else find(name))
    monkeypatch.delitem(sys.modules, "ml_collections")
    assert [tool.read_config(path, name) for name in NAMES] == real
