"""The same global batch gives the same updates, however it is cut into batches, passes and chunks.

Eight edits an update (two groups of four) are sampled and replayed 8, 4, 2 or 1 at a time. Every cut has to follow the
trajectory of losses and gradient norms in `trajectories.json`, and to end at its weights. Two processes against one are
in tests/training/test_distributed.py.

    python tests/invariant/test_trajectories.py    # writes trajectories.json anew

Regenerate only when the arithmetic was changed on purpose, or when a new torch, diffusers or peft draws other random
numbers (initial LoRA, noise) or computes a kernel in another order by more than the tolerance; say which in the commit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FILE = Path(__file__).with_name("trajectories.json")
EDITS, GROUP, UPDATES = 8, 4, 4
#: Edits in a pass (and at most in a pipeline call), passes an update.
CUTS = {"flow_grpo": ((8, 1), (4, 2), (2, 4), (1, 8)), "nft": ((8, 1), (2, 4))}
QUICK = (("flow_grpo", (8, 1)), ("flow_grpo", (2, 4)), ("nft", (8, 1)))
OBJECTIVES: dict[str, dict[str, Any]] = {
    # Two updates a rollout, so that ratios leave 1; a KL, so that the reference policy counts.
    "flow_grpo": {"beta": 0.04, "num_iterations": 2, "epsilon": 0.1, "shared_noise": True},
    "nft": {"objective": "nft", "beta": 0.04},
}
RELATIVE = 1e-4


def redness(completions: list[Any], **_: Any) -> list[float]:
    """Smooth in every pixel: a judge with thresholds would turn rounding into another reward."""
    pixels = [np.asarray(image, np.float64) for image in completions]
    return [float((p[..., 0] - p[..., 1:].mean(-1)).mean()) for p in pixels]


def trajectory(objective: str, batch: int, accumulation: int) -> dict[str, list[float]]:
    """`loss` and `grad_norm` of each update, and `weights`: the norm of every fourth trained matrix at the end."""
    from peft import LoraConfig

    from editr1_plugins.miniedit.model import CALL, load_pipeline
    from editr1_plugins.miniedit.pairs import edit_dataset, sample_tasks
    from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        args = EditGRPOConfig(
            output_dir=folder,
            seed=3,  # also of the LoRA's initial weights
            max_steps=UPDATES,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_generations=GROUP,
            num_inference_steps=3,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            pipeline_kwargs=CALL,
            preflight=False,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **OBJECTIVES[objective],
        )
        rows = edit_dataset(sample_tasks(4, seed=5))
        lora = LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_q", "to_v", "ff.net.2"])
        trainer = EditGRPOTrainer(load_pipeline("start"), redness, args, rows, peft_config=lora)
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    weights = [parameter.detach().norm().item() for parameter in trainer.policy.parameters]
    return {
        "loss": [entry["loss"] for entry in logs],
        "grad_norm": [entry["grad_norm"] for entry in logs],
        "weights": weights[::4],
    }


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("objective", "batch", "accumulation"),
    [
        pytest.param(name, *cut, marks=[pytest.mark.slow] * ((name, cut) not in QUICK))
        for name, cuts in CUTS.items()
        for cut in cuts
    ],
)
def test_every_cut_of_a_batch_follows_the_committed_trajectory(objective: str, batch: int, accumulation: int) -> None:
    assert batch * accumulation == EDITS
    committed = json.loads(FILE.read_text())[objective]
    found = trajectory(objective, batch, accumulation)
    for name, wanted in committed.items():
        assert len(found[name]) == len(wanted)
        scale = max(map(abs, wanted))  # a loss near 0 is a difference of large terms, so it is held to the largest
        np.testing.assert_allclose(found[name], wanted, rtol=RELATIVE, atol=RELATIVE * scale, err_msg=name)


def main() -> None:
    torch.set_num_threads(1)
    found = {objective: trajectory(objective, EDITS, 1) for objective in OBJECTIVES}
    FILE.write_text(json.dumps({"torch": torch.__version__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
