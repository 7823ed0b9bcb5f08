"""The model card and what is pushed: what was trained and how, nothing secret, nothing that acts."""

from __future__ import annotations

import base64
import html
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.card_text import known_secrets, plain_text, redacted
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.training.model_card import draw_curves
from editr1_plugins.types import Edit, Verification

TOKEN = "hf_" + "Zq7" * 9
PASSWORD = "correct-horse-battery"
HOSTILE = "make it red\n\n# Free model\n<img src=x onerror=alert(1)> [here](http://evil.example) | ![](http://e.example/p.png)"


class Judge:
    """A verifier whose identity is as bad as it may be."""

    identity = f"openai:judge@http://user:{PASSWORD}@judge.example/v1?api_key={PASSWORD}#{TOKEN}"
    prompt_version = "think+verify/3"

    def verify(self, edits: list[Edit], principles: Any) -> list[Verification]:
        return [Verification(score=edit.edited.resize((1, 1)).getpixel((0, 0))[0] / 25.5) for edit in edits]


def rows(prompt: str = "make the sky red") -> Dataset:
    return Dataset.from_list([{"image": picture(32, i), "prompt": prompt} for i in range(3)])


def trainer(folder: Path, reward: Any = None, *, prompt: str = "make the sky red", **changes: Any) -> EditGRPOTrainer:
    lora = LoraConfig(r=2, lora_alpha=5, target_modules=["to_q", "to_v"])
    pipe, call = tiny_pipeline("kontext", lora_rank=0)
    set_by_trainer = ("image", "prompt", "num_inference_steps", "output_type")
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "num_inference_steps": 3,
        "eval_num_inference_steps": 2,
        "max_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "pipeline_kwargs": {name: value for name, value in call.items() if name not in set_by_trainer},
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
    }
    peft = None if changes.pop("full", False) else lora
    args = EditGRPOConfig(**{**options, **changes})
    return EditGRPOTrainer(pipe, reward or EditRRMReward(Judge()), args, rows(prompt), rows(prompt), peft_config=peft)


def card_of(run: EditGRPOTrainer, **given: Any) -> str:
    run.create_model_card(**given)
    return (Path(run.args.output_dir) / "README.md").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EditGRPOTrainer:
    run = trainer(tmp_path_factory.mktemp("run") / "my-editor", beta=0.125, learning_rate=7e-4, ema_decay=0.5)
    run.train()
    return run


def test_the_card_says_what_was_trained_and_how(trained: EditGRPOTrainer) -> None:
    text = card_of(trained, license="apache-2.0", tags="kontext", results={"gold": 0.625})
    assert "# my-editor" in text
    for said in (
        "A LoRA adapter of FluxKontextPipeline",
        "LoRA rank 2, alpha 5, on to_q, to_v",
        "verifier: openai:judge",
        "decomposer: rules",
        "prompt_version: think+verify/3",
        "guards: no-edit, border",
        "| beta | 0.125 | 0.04 |",
        "| learning_rate | 0.0007 | 0.0003 |",
        "moving average with decay 0.5",
        "2 updates from 2 rollouts of 1 x 2 edits",
        "| training | 3 |",
        trained.train_dataset._fingerprint,
        "| eval_reward | ",
        "| gold |  |  | 0.625 |",
        "![Held-out edits](eval/step-2.jpg)",
        "- make the sky red",
        f"- torch {torch.__version__}",
    ):
        assert said in html.unescape(text), said
    assert trained.args.output_dir not in text
    data = ModelCard(text).data
    assert data.library_name == "diffusers"
    assert data.license == "apache-2.0"
    assert {"lora", "kontext", "image-to-image"} <= set(data.tags)
    assert data.base_model is None  # a pipeline from nowhere: no such repository


def test_a_base_model_of_the_hub_is_linked_and_a_local_path_is_not(trained: EditGRPOTrainer, tmp_path: Path) -> None:
    names = {"owner/an-editor": "owner/an-editor", str(tmp_path / "private" / "weights"): None}
    for name, shown in names.items():
        trained.pipe.register_to_config(_name_or_path=name)
        text = card_of(trained)
        assert ModelCard(text).data.base_model == shown
        assert str(tmp_path) not in text
        assert (f'from_pretrained("{name}")' in text) is (shown is not None)


def test_curves_are_drawn_where_matplotlib_is(trained: EditGRPOTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(trained.args.output_dir)
    assert "![Reward over updates](curves.png)" in card_of(trained)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("editr1_plugins.training.model_card.find_spec", lambda name: None)
    assert "curves.png" not in card_of(trained)
    assert not draw_curves([], folder / "none.png")


def test_a_function_is_named_where_it_has_no_settings(tmp_path: Path) -> None:
    def how_red(completions: Any, **_: Any) -> list[float]:
        return [1.0] * len(completions)

    text = card_of(trainer(tmp_path, [how_red, EditRRMReward(Judge(), name="rrm")], reward_weights=[1.0, 0.5]))
    assert "**how_red**" in text
    assert "how_red" in text.split("- the function ")[1].split("\n")[0]
    assert "**rrm**, weight 0.5" in text
    assert "Nothing was measured." in text


def test_no_secret_is_in_the_card_or_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_API_KEY", "plainlookingvalue")
    prompt = f"make it red plainlookingvalue {TOKEN} Bearer {PASSWORD}"
    run = trainer(tmp_path, prompt=prompt, hub_token=TOKEN, pipeline_kwargs={"max_sequence_length": 24})
    text = card_of(run, tags=[TOKEN], model_name=f"model {TOKEN}")
    for secret in (TOKEN, PASSWORD, "plainlookingvalue", html.escape(TOKEN)):
        assert secret not in html.unescape(text)
    assert "judge.example" in text
    run.save_model()
    stored = (tmp_path / "training_args.bin").read_bytes()
    assert TOKEN.encode() not in stored
    assert run.args.hub_token == TOKEN
    assert pickle.loads(pickle.dumps(run.args)).learning_rate == run.args.learning_rate


def test_instructions_cannot_act(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    page = markdown.render(ModelCard(card_of(trainer(tmp_path, prompt=HOSTILE))).text)
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert " ".join(HOSTILE.split()) in shown
    assert "<h1>Free model" not in page
    assert "<img" not in page.replace('<img src="eval/', "").replace('<img src="curves', "")
    assert "evil.example" not in "".join(re.findall(r'href="[^"]*"', page))
    assert page.count("<table>") == page.count("</table>") >= 2
    assert len(re.findall(r"<tr>", page)) > 6  # rows were not torn apart


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"[-+*#>|=~`_!\[\]()<>&;:/.\\ a1]{0,30}", fullmatch=True))
def test_any_text_reads_as_itself(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    expected = "".join(letter for letter in " ".join(redacted(text).split()) if letter.isprintable()).strip()
    page = markdown.render(f"x\n\n{plain_text(text)}\n\nx")
    body = page.removeprefix("<p>x</p>\n").removesuffix("<p>x</p>\n")
    assert html.unescape(body).strip() == (f"<p>{expected}</p>" if expected else "")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"key={TOKEN}", "key=[redacted]"),
        ("http://u:pw@h/v1?token=abc&x=1", "http://h/v1?token=[redacted]&x=1"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
        ("sk-" + "a1" * 20, "[redacted]"),
        ("skeletons-and-task-lists-are-no-keys", "skeletons-and-task-lists-are-no-keys"),
        ("mine is hunter2-hunter2", "mine is [redacted]"),
    ],
)
def test_what_looks_like_a_credential_goes(text: str, kept: str) -> None:
    assert redacted(text, known_secrets("hunter2-hunter2", None, "on")) == kept


# Pushing


HUB_RUN = """
import sys
from pathlib import Path
import importlib.util

spec = importlib.util.spec_from_file_location("cards", sys.argv[1])
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)
folder, strategy = Path(sys.argv[2]), sys.argv[3]
run = cards.trainer(
    folder, push_to_hub=True, hub_model_id="me/my-editor", hub_token=cards.TOKEN, hub_strategy=strategy,
    save_strategy="steps", save_steps=1, hub_always_push=True,
)
run.train()
run.push_to_hub()
"""


class Hub:
    """As much of the hub's HTTP interface as creating a repository and committing files takes; keeps every file."""

    def __init__(self, server: HTTPServer) -> None:
        self.commits: list[dict[str, bytes]] = []
        self.unknown: list[str] = []
        self.tokens: set[str | None] = set()
        self.url = server.url_for("")
        server.expect_request(re.compile(".*")).respond_with_handler(self.answer)

    def answer(self, request: Request) -> Response:
        path, body = request.path, request.get_data()
        if path.startswith(("/api/repos", "/api/models")):
            self.tokens.add(request.headers.get("Authorization"))
        if path == "/api/repos/create":
            found: Any = {"url": f"{self.url}me/my-editor", "name": "me/my-editor", "id": "me/my-editor"}
        elif path == "/api/validate-yaml":
            found = {"errors": [], "warnings": []}
        elif path.startswith("/api/models/me/my-editor/preupload/"):
            asked = json.loads(body)["files"]
            found = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
        elif path.startswith("/api/models/me/my-editor/commit/"):
            entries = [json.loads(line) for line in body.splitlines()]
            files = [entry["value"] for entry in entries if entry["key"] == "file"]
            self.commits.append({f["path"]: base64.b64decode(f["content"]) for f in files})
            found = {"commitUrl": f"{self.url}me/my-editor/commit/{'0' * 40}", "commitOid": "0" * 40, "hookOutput": ""}
        elif path.startswith("/api/models/me/my-editor"):
            found = {"id": "me/my-editor", "sha": "0" * 40, "siblings": [], "private": False}
        else:
            self.unknown.append(f"{request.method} {path}")
            return Response("no such thing", status=404)
        return Response(json.dumps(found), content_type="application/json")


@pytest.mark.parametrize("strategy", ["every_save", pytest.param("end", marks=pytest.mark.slow)])
def test_weights_and_card_are_pushed(tmp_path: Path, httpserver: HTTPServer, strategy: str) -> None:
    hub = Hub(httpserver)
    environment = {**os.environ, "HF_ENDPOINT": hub.url.rstrip("/"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", HUB_RUN, __file__, str(tmp_path / "my-editor"), strategy]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert len(hub.commits) >= (3 if strategy == "every_save" else 1)
    for files in hub.commits:
        assert "pytorch_lora_weights.safetensors" in files, sorted(files)
        assert "README.md" in files
        assert not any(name.startswith((".", "checkpoint-")) for name in files), sorted(files)
        assert not any(TOKEN.encode() in content or PASSWORD.encode() in content for content in files.values())
    last = hub.commits[-1]
    assert "eval/step-2.jpg" in last
    assert "2 updates from 2 rollouts" in last["README.md"].decode()
    assert 'pipe.load_lora_weights("me/my-editor")' in last["README.md"].decode()
    folder = tmp_path / "from_hub"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(last["pytorch_lora_weights.safetensors"])
    fresh, _ = tiny_pipeline("kontext", lora_rank=0)
    fresh.load_lora_weights(str(folder))
    assert any("lora_" in name for name, _ in fresh.transformer.named_parameters())


def test_the_card_of_full_fine_tuning_names_the_pipeline(tmp_path: Path) -> None:
    text = card_of(trainer(tmp_path, full=True, beta=0.0))
    assert "A fine-tuned version of FluxKontextPipeline" in text
    assert 'DiffusionPipeline.from_pretrained("THIS_REPOSITORY")' in text
    assert "lora" not in ModelCard(text).data.tags
