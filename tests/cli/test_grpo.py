"""`editr1 grpo`: YAML and flags, the recipe that fits, data found broken, training in its own process, resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from editr1_plugins.cli import main
from editr1_plugins.cli.grpo_arguments import GRPOArguments, parse_arguments
from editr1_plugins.errors import ConfigError
from editr1_plugins.miniedit.model import weights_path
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.training.edit_data import load_edit_data
from editr1_plugins.training.edit_grpo import (
    EditGRPOTrainer,
    KontextGRPOConfig,
    KontextGRPOTrainer,
    QwenImageEditGRPOConfig,
    QwenImageEditGRPOTrainer,
)

KONTEXT = str(weights_path("start"))  # stock FLUX.1 Kontext classes, 1.7 M parameters
CALL = {"height": 32, "width": 32, "max_area": 1024, "_auto_resize": False, "max_sequence_length": 10}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def edits(folder: Path, count: int = 8, name: str = "train.jsonl", **first: Any) -> Path:
    """A folder of drawn scenes; `first` changes the first row."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, task in enumerate(sample_tasks(count, seed=5)):
        draw(task.scene).save(folder / "images" / f"{index}.png")
        rows.append({"image": f"images/{index}.png", "prompt": task.instruction})
    rows[0] |= first
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": KONTEXT,
        "dataset_name": str(tmp_path / "edits"),
        "verifier": "measure",
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_inference_steps": 3,
        "eval_num_inference_steps": 2,
        "learning_rate": 1e-3,
        "lora_r": 4,
        "pipeline_kwargs": CALL,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    }


def config_file(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "kontext.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, **changes)))
    return str(path)


def parsed(tmp_path: Path, *flags: str, **changes: Any) -> GRPOArguments:
    return parse_arguments(["--config", config_file(tmp_path, **changes), *flags])


def run(*arguments: str, launcher: tuple[str, ...] = (), cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    program = launcher or (sys.executable,)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*program, "-m", "editr1_plugins", "grpo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cwd)


class TestArguments:
    def test_flags_win_over_yaml_and_yaml_over_the_recipe(self, tmp_path: Path) -> None:
        found = parsed(tmp_path, "--num_inference_steps", "5", "--max-steps", "7", beta=0.5)
        assert isinstance(found.config, KontextGRPOConfig)
        assert (found.config.num_inference_steps, found.config.max_steps, found.config.beta) == (5, 7, 0.5)
        assert (found.config.guidance_scale, found.config.ema_decay) == (2.5, 0.9)  # the recipe's
        assert found.config.pipeline_kwargs == CALL

    def test_json_on_the_command_line_and_numbers_yaml_takes_for_text(self, tmp_path: Path) -> None:
        found = parsed(tmp_path, "--pipeline_kwargs", '{"max_area": 64}', learning_rate="5e-4")
        assert found.config.pipeline_kwargs == {"max_area": 64}
        assert found.config.learning_rate == 5e-4

    @pytest.mark.parametrize(
        ("name", "trainer", "config"),
        [
            ("FluxKontextPipeline", KontextGRPOTrainer, KontextGRPOConfig),
            ("FluxKontextInpaintPipeline", KontextGRPOTrainer, KontextGRPOConfig),
            ("QwenImageEditPipeline", QwenImageEditGRPOTrainer, QwenImageEditGRPOConfig),
            ("QwenImageEditPlusPipeline", QwenImageEditGRPOTrainer, QwenImageEditGRPOConfig),
            ("Flux2KleinPipeline", EditGRPOTrainer, None),
            ("QwenImagePipeline", EditGRPOTrainer, None),
        ],
    )
    def test_the_pipeline_class_decides_the_recipe(self, tmp_path: Path, name: str, trainer: Any, config: Any) -> None:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        flags = ["--model_name_or_path", str(tmp_path), "--use_cpu"]
        found = parse_arguments([*flags, "--num_generations", "8", "--output_dir", str(tmp_path)])
        assert found.trainer_class is trainer
        assert type(found.config) is (config or trainer.config_class)

    def test_a_named_recipe_wins(self, tmp_path: Path) -> None:
        found = parsed(tmp_path, recipe="qwen-image-edit", model_name_or_path="not/looked-at", num_inference_steps=12)
        assert found.trainer_class is QwenImageEditGRPOTrainer
        with pytest.raises(ConfigError, match="recipe='flux': one of kontext, qwen-image-edit, generic"):
            parsed(tmp_path, "--recipe", "flux")

    def test_the_qwen_recipe_guides_with_a_blank_negative_prompt(self, tmp_path: Path) -> None:
        qwen = {"recipe": "qwen-image-edit", "num_inference_steps": 12, "pipeline_kwargs": {"height": 64}}
        assert parsed(tmp_path, **qwen).config.pipeline_kwargs == {"negative_prompt": " ", "height": 64}
        assert parsed(tmp_path, **qwen, true_cfg_scale=1.0).config.pipeline_kwargs == {"height": 64}

    def test_the_published_lora_is_the_default(self, tmp_path: Path) -> None:
        lora = parsed(tmp_path, lora_r=None).lora()
        assert (lora.r, lora.lora_alpha, set(lora.target_modules)) == (64, 128, set(KontextGRPOTrainer.lora_targets))
        small = parsed(tmp_path, "--lora_target_modules", "to_q", "to_v", "--lora_alpha", "3").lora()
        assert (small.r, small.lora_alpha, small.target_modules) == (4, 3, {"to_q", "to_v"})
        assert parsed(tmp_path, use_peft=False).lora() is None

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_generation": 4}, "no option 'num_generation', did you mean 'num_generations'"),
            ({"num_generations": 3}, "must be a multiple of num_generations"),
            ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
            ({"window_strategy": "later"}, "window_strategy='later'"),
            ({"pipeline_kwargs": "{"}, "Expecting property name"),
            ({"model_name_or_path": None}, "no model"),
            ({"model_name_or_path": "./none"}, "no diffusers pipeline"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["grpo", "--config", config_file(tmp_path, **changes)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("text", "message"), [("a: [", "is not YAML"), ("- a\n- b", "must hold keys"), (None, "cannot be read")]
    )
    def test_a_file_that_is_no_configuration(self, tmp_path: Path, text: str | None, message: str) -> None:
        path = tmp_path / "config.yaml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            parse_arguments([f"--config={path}"])

    def test_an_unknown_flag(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no option 'max_step', did you mean 'max_steps'"):
            parsed(tmp_path, "--max_step=3")

    def test_the_options_of_a_recipe_with_their_defaults(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["grpo", "--recipe", "qwen-image-edit", "--options"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "--true_cfg_scale" in out
        assert "(default: 4.0)" in out
        assert "--dataset_name" in out

    def test_json_without_check_is_refused(self, tmp_path: Path) -> None:
        assert main(["grpo", "--config", config_file(tmp_path), "--json"]) == 2


class TestCheck:
    def check(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, dict[str, Any]]:
        status = main(["grpo", "--config", config_file(tmp_path, **changes), "--check", "--json"])
        return status, json.loads(capsys.readouterr().out)

    def test_it_says_what_would_be_trained_and_trains_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        edits(tmp_path / "edits")
        status, found = self.check(tmp_path, capsys, max_steps=-1, num_train_epochs=2)
        assert (status, found["ok"], found["problem"]) == (0, True, None)
        assert (found["pipeline"], found["recipe"], found["dtype"]) == ("FluxKontextPipeline", "kontext", "float32")
        assert found["rewards"][0]["verifier"].startswith("measure")
        assert found["data"]["train"]["rows"] == 8
        assert found["plan"]["updates"] == 16
        assert 0 < found["plan"]["trained_parameters"] < found["plan"]["parameters"]
        assert found["replay"]["log_prob_error"] <= 1e-6
        assert not list((tmp_path / "out").glob("*"))

    def test_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edits(tmp_path / "edits")
        assert main(["grpo", "--config", config_file(tmp_path), "--check"]) == 0
        lines = capsys.readouterr().out.splitlines()
        parts = ["model", "data", "reward", "trains", "rollout", "updates", "replay"]
        assert list(dict.fromkeys(line.split()[0] for line in lines[:-1])) == parts
        assert "FluxKontextPipeline replays exactly" in "".join(lines)
        assert lines[-1] == "ready to train"

    def test_broken_rows_fail_it_with_their_index(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edits(tmp_path / "edits", image="images/none.png")
        status, found = self.check(tmp_path, capsys)
        assert (status, found["ok"]) == (1, False)
        assert "1 of 8 rows are broken" in found["problem"]
        assert found["data"]["train"]["first_broken"][0]["index"] == 0
        assert "pipeline" not in found  # nothing heavy was loaded

    def test_broken_rows_can_be_skipped_and_are_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        edits(tmp_path / "edits", prompt="")
        status, found = self.check(tmp_path, capsys, skip_broken=True)
        assert (status, found["data"]["train"]["broken"]) == (0, 1)

    def test_a_replay_that_is_not_exact_fails_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from diffusers import FluxTransformer2DModel

        edits(tmp_path / "edits")
        # A cache left on: what a network computes then depends on the steps before.
        monkeypatch.setattr(FluxTransformer2DModel, "is_cache_enabled", True)
        status, found = self.check(tmp_path, capsys)
        assert (status, found["ok"]) == (1, False)
        assert "cannot be trained exactly" in found["problem"]

    @pytest.mark.parametrize("form", ["parquet", "web dataset", "save_to_disk"])
    def test_other_forms_of_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
        rows = load_edit_data(edits(tmp_path / "edits")).dataset
        from datasets import Dataset, Features, Image, Value

        features = Features({"image": Image(), "prompt": Value("string")})
        whole = Dataset.from_list(list(rows), features=features)
        folder = tmp_path / "form"
        if form == "save_to_disk":
            whole.save_to_disk(folder)
        else:
            folder.mkdir()
        if form == "parquet":
            whole.to_parquet(folder / "train.parquet")
        if form == "web dataset":
            _archive(folder / "train.tar", tmp_path / "edits")
        status, found = self.check(tmp_path, capsys, dataset_name=str(folder))
        assert (status, found["data"]["train"]["rows"]) == (0, 8)

    def test_evaluation_data_are_checked_too(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edits(tmp_path / "edits")
        options = {"eval_strategy": "steps", "eval_steps": 1}
        status, found = self.check(tmp_path, capsys, **options)
        assert (status, found["problem"]) == (
            1,
            f"{tmp_path / 'edits'} has no file of the split 'test'; there is: train.jsonl",
        )
        edits(tmp_path / "edits", count=2, name="test.jsonl")
        status, found = self.check(tmp_path, capsys, **options)
        assert (status, found["data"]["test"]["rows"]) == (0, 2)


def _archive(path: Path, source: Path) -> None:
    import tarfile

    with tarfile.open(path, "w") as tar:
        for index, line in enumerate((source / "train.jsonl").read_text().splitlines()):
            row = json.loads(line)
            (source / "row.json").write_text(json.dumps({"prompt": row["prompt"]}))
            tar.add(source / row["image"], arcname=f"{index:03}.png")
            tar.add(source / "row.json", arcname=f"{index:03}.json")


class TestRewards:
    def test_dotted_paths_beside_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        edits(tmp_path / "edits")
        code = "def redness(completions, **_): return [float(e.getpixel((0, 0))[0]) for e in completions]"
        (tmp_path / "my_rewards.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        names = ["edit_rrm", "my_rewards.redness"]
        assert main(["grpo", "--config", config_file(tmp_path, reward_funcs=names), "--check", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [reward["name"] for reward in found["rewards"]] == ["edit_rrm_measure", "redness"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"reward_funcs": "no.such.module"}, "cannot be imported"),
            ({"reward_funcs": "accuracy"}, "no dotted path"),
            ({"reward_funcs": "math.floor"}, "verifier set up 'edit_rrm', which is not among reward_funcs"),
            ({"verifier": "mesure"}, "did you mean 'measure'"),
            ({"guards": ["no-edits"]}, "no-edit"),
            ({"aggregate": "sum"}, "'score' or 'average'"),
            ({"dataset_name": None}, "no data"),
            ({"lora_target_modules": ["nowhere"]}, "nowhere"),
            ({"pipeline_kwargs": {"depth": 3}}, "takes no depth"),
            ({"dtype": "int8"}, "dtype='int8'"),
        ],
    )
    def test_what_cannot_be_set_up(self, tmp_path: Path, changes: dict[str, Any], message: str, capsys: Any) -> None:
        edits(tmp_path / "edits")
        reward = changes.get("reward_funcs")
        if reward is not None and reward != "math.floor":
            changes = {**changes, "verifier": None}
        assert main(["grpo", "--config", config_file(tmp_path, **changes)]) == 2
        assert message in capsys.readouterr().err


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "pytorch_lora_weights.safetensors")


@pytest.mark.slow
def test_a_run_is_resumed_by_another_process_and_leaves_a_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers import FluxKontextPipeline

    edits(tmp_path / "edits")
    edits(tmp_path / "edits", count=2, name="test.jsonl")
    options = {"max_steps": 4, "save_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    config = config_file(tmp_path, record=str(tmp_path / "records"), **options)
    monkeypatch.chdir(tmp_path)
    assert main(["grpo", "--config", config]) == 0
    out = capsys.readouterr().out
    assert "'reward'" in out
    assert "'eval_reward'" in out
    assert list((tmp_path / "records").glob("records-*.jsonl"))
    assert main(["report", str(tmp_path / "records"), "-o", str(tmp_path / "page.html")]) == 0

    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "out" / "checkpoint-2").rename(again / "checkpoint-2")
    resumed = run("--config", config, "--output_dir", str(again), "--resume_from_checkpoint", "latest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    weights = trained(tmp_path / "out")
    assert all(torch.equal(value, weights[name]) for name, value in trained(again).items())

    pipe = FluxKontextPipeline.from_pretrained(KONTEXT)
    pipe.load_lora_weights(again)
    assert any("lora" in name for name, _ in pipe.transformer.named_parameters())


@pytest.mark.slow
def test_torchrun_shares_the_work_and_the_check_of_the_data(tmp_path: Path) -> None:
    """Two processes make the update of one: the same global batch, half of it each."""
    edits(tmp_path / "edits", image="images/none.png")
    options = {
        "skip_broken": True,
        "max_steps": 1,
        "gradient_accumulation_steps": 2,
        "output_dir": str(tmp_path / "one"),
    }
    assert main(["grpo", "--config", config_file(tmp_path, **options)]) == 0
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    both = run(
        *("--config", config_file(tmp_path, **options), "--gradient_accumulation_steps", "1"),
        *("--output_dir", str(tmp_path / "two"), "--ddp_backend", "gloo"),
        launcher=launcher,
        cwd=tmp_path,
    )
    assert both.returncode == 0, both.stderr[-3000:]
    assert both.stderr.count("1 of 8 rows are left out") == 1
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-6), name


def test_help_is_short_and_quick() -> None:
    code = """
        import sys
        from editr1_plugins.cli import main
        main(["grpo", "--help"])
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "editr1 grpo --config kontext.yaml --check" in done.stdout
