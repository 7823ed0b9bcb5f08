"""What replay costs beyond the transformer's own work, how much autograd keeps, how often encoders run.

    python tests/performance/replay_overhead.py [--width 512] [--layers 4] [--rows 2] [--rounds 7]

A Kontext of random weights, few layers and the given width (LoRA of rank 4). "Replay" is `accumulate` with Flow-GRPO:
the pipeline's own body walked through the recorded steps, the loss, backward at each step. "Bare" calls the transformer
with the arguments caught on the way and calls backward: the same work and nothing else. Both run in turns in one
process on one thread and are compared by CPU time, median over rounds. Target: ratio <= 1.03 at width >= 512.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.algorithms import accumulate
from editr1_plugins.training.algorithms.flow_grpo import FlowGRPO
from editr1_plugins.training.rollout import Rollout, record, record_group, velocities, visit

TARGET, TARGET_WIDTH = 1.03, 512
HEAD = 64


def wide_pipeline(width: int, layers: int, steps: int) -> tuple[Any, dict[str, Any]]:
    """The tiny Kontext with a transformer of `layers` + `layers` blocks, `width` wide, and a call of 152 tokens."""
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig

    pipe, call = tiny_pipeline("kontext", steps=steps, lora_rank=0)
    torch.manual_seed(0)
    pipe.transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=HEAD,
        num_attention_heads=width // HEAD,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(16, 24, 24),
    )
    pipe.transformer.requires_grad_(False)
    pipe.transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    return pipe, {**call, "image": picture(32)}


def rolled_out(pipe: Any, call: dict[str, Any], rows: int, steps: int) -> Rollout:
    return record(pipe, call, seeds=range(rows), window=range(steps))


def overhead(width: int, layers: int, rows: int, rounds: int, steps: int = 4) -> tuple[float, float, float]:
    """(CPU seconds of the bare work, of replay, median ratio of neighbours) for `steps` steps of `rows` rows."""
    pipe, call = wide_pipeline(width, layers, steps + 1)
    rollout, objective = rolled_out(pipe, call, rows, steps), FlowGRPO()
    points, advantages = objective.prepare(pipe, rollout), torch.linspace(-1, 1, rows)
    arguments: list[dict[str, Any]] = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, __, named: arguments.append(named), with_kwargs=True)
    velocities(pipe, rollout, [point.visit() for point in points])
    hook.remove()
    gradient = torch.full_like(rollout.final, 1e-3)

    def bare() -> None:
        for named in arguments:
            velocity = pipe.transformer(**named)[0][:, : rollout.final.shape[1]]
            torch.autograd.backward(velocity, gradient)

    def replay() -> None:
        accumulate(objective, pipe, rollout, points, advantages)

    times: dict[Callable[[], None], list[float]] = {bare: [], replay: []}
    for number in range(rounds + 1):  # the first round warms up
        for way in (bare, replay) if number % 2 else (replay, bare):
            began = time.process_time()
            way()
            times[way].append(time.process_time() - began)
    ratios = [ours / theirs for ours, theirs in zip(times[replay][1:], times[bare][1:], strict=True)]
    return statistics.median(times[bare][1:]), statistics.median(times[replay][1:]), statistics.median(ratios)


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Within: [peak, now] of the bytes that autograd keeps for backward, weights left out, each storage once."""
    found, holders = [0, 0], Counter[int]()

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.place = tensor, tensor.untyped_storage().data_ptr()
            base = tensor if tensor._base is None else tensor._base
            self.size = 0 if isinstance(base, torch.nn.Parameter) else tensor.untyped_storage().nbytes()
            holders[self.place] += 1
            if holders[self.place] == 1:
                found[1] += self.size
                found[0] = max(found)

        def __del__(self) -> None:
            holders[self.place] -= 1
            if not holders[self.place]:
                found[1] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        yield found


def autograd_peak(steps: int, *, at_once: bool) -> int:
    """Peak bytes kept by autograd while `steps` steps are replayed; `at_once`: with one backward after the last."""
    pipe, call = wide_pipeline(128, 1, steps + 1)
    rollout, objective = rolled_out(pipe, call, 2, steps), FlowGRPO()
    points, advantages = objective.prepare(pipe, rollout), torch.tensor([1.0, -1.0])
    with saved_bytes() as found:
        if not at_once:
            accumulate(objective, pipe, rollout, points, advantages)
        else:
            losses: list[torch.Tensor] = []
            visits = [point.visit() for point in points]
            keep = lambda i, v: losses.append(objective.loss(points[i], v, advantages).loss.mean())  # noqa: E731
            visit(pipe, rollout, visits, keep)
            torch.stack(losses).sum().backward()
    return found[0]


def encoder_calls(group: int, chunk: int) -> dict[str, int]:
    """How often each encoder really runs while a group is sampled in chunks and replayed twice."""
    pipe, call = wide_pipeline(128, 1, 4)
    calls = Counter[str]()
    encoders = {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2, "vae": pipe.vae.encoder}
    for name, module in encoders.items():  # deep inside: the networks' own forward is what the tape stands in for
        inner = next(part for part in module.modules() if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d)))
        inner.register_forward_hook(lambda *_, name=name: calls.update([name]))
    rollout, objective = record_group(pipe, call, seeds=range(group), chunk=chunk, window=range(3)), FlowGRPO()
    points = objective.prepare(pipe, rollout)
    for _ in range(2):
        for first in range(0, group, chunk):
            rows = slice(first, first + chunk)
            accumulate(objective, pipe, rollout, points, torch.linspace(-1, 1, group), rows=rows)
    return dict(calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, nargs="*", default=[128, 512], help=f"multiples of {HEAD}")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| width | bare, CPU ms | replay, CPU ms | ratio |\n|---|---|---|---|")
    for width in options.width:
        bare, replay, ratio = overhead(width, options.layers, options.rows, options.rounds)
        verdict = "" if width < TARGET_WIDTH else " (met)" if ratio <= TARGET else f" (target {TARGET} missed)"
        print(f"| {width} | {1e3 * bare:.0f} | {1e3 * replay:.0f} | {ratio:.3f}{verdict} |", flush=True)
    print("\n| steps | autograd keeps, MB | with one backward at the end, MB |\n|---|---|---|")
    for steps in (2, 4, 8):
        peaks = [autograd_peak(steps, at_once=at_once) / 1e6 for at_once in (False, True)]
        print(f"| {steps} | {peaks[0]:.2f} | {peaks[1]:.2f} |", flush=True)
    print(
        "\nencoder runs for one prompt, 12 edits in chunks of 4, sampled once and replayed twice:", encoder_calls(12, 4)
    )


if __name__ == "__main__":
    main()
