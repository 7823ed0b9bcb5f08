"""Prints what `tables.py` measured: tables in Markdown, the four orderings, and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib import pyplot

Records = Sequence[dict[str, Any]]

_NAMES: Final = {
    "sft-think": "SFT, T",
    "sft-verify": "SFT, V",
    "sft-think+verify": "SFT, T+V",
    "more-sft": "T+V, as much CPU time of SFT more",
    "gcpo": "T+V + GCPO",
}
_WAYS: Final = {"sampled": "T = 1", "greedy": "greedy", "expected": "expected"}
#: Quantiles of Student's t for a two-sided 95 % interval of a mean, by the number of seeds.
_STUDENT: Final = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
#: The better, the worse, and the words for it: method.md's orderings of judges; the last one is the deciding control.
_ORDERINGS: Final = (
    ("sft-think+verify", "sft-think", "T+V above T"),
    ("sft-think+verify", "sft-verify", "T+V above V"),
    ("gcpo", "sft-think+verify", "GCPO above SFT"),
    ("gcpo", "more-sft", "GCPO above equally long SFT"),
)


def show(judges: Records, editors: Records, output: Path) -> None:
    """Print all tables, write `curve.png`."""
    stages = [one for one in judges if one["stage"] != "base"]
    print(judge_table(stages))
    print(ordering_table(stages))
    if editors:
        print(editor_table(editors))
        curve(editors, output / "curve.png")
    seconds = {
        "pretraining": sum(one["cpu_seconds"] for one in judges if one["stage"] == "base"),
        "judges": sum(one["cpu_seconds"] for one in stages),
        "editors": sum(one["cpu_seconds"] for one in editors),
    }
    print("CPU minutes of training: " + ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items()))


def judge_table(stages: Records) -> str:
    lines = [
        "| size | judge | pair accuracy, T = 1 | greedy | expected | ties, T = 1 | ties, greedy | failures "
        "| verdicts, T = 1 | verdicts, greedy | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in sorted({one["size"] for one in stages}, reverse=True):
        for stage, name in _NAMES.items():
            found = [one for one in stages if (one["size"], one["stage"]) == (size, stage)]
            if not found:
                continue
            cells = [interval(of(found, way, "pair_accuracy")) for way in _WAYS]
            cells += [interval(of(found, way, "pair_tie_rate")) for way in ("sampled", "greedy")]
            cells += [interval(of(found, "sampled", "pair_failure_rate"))]
            cells += [interval(of(found, way, "verdict_accuracy")) for way in ("sampled", "greedy")]
            cells += [f"{np.mean([one['cpu_seconds'] for one in found]):.0f}"]
            lines.append(f"| {size} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def ordering_table(stages: Records) -> str:
    """Differences of pair accuracy, seed by seed."""
    lines = ["| ordering | size | " + " | ".join(_WAYS.values()) + " |", "|---|---|---|---|---|"]
    sizes = sorted({one["size"] for one in stages}, reverse=True)
    for better, worse, words in _ORDERINGS:
        for size in sizes:
            cells = [difference(stages, way, (size, better), (size, worse)) for way in _WAYS]
            lines.append(f"| {words} | {size} | " + " | ".join(cells) + " |")
    if len(sizes) == 2:
        for stage in ("sft-think+verify", "gcpo"):
            cells = [difference(stages, way, ("base", stage), ("small", stage)) for way in _WAYS]
            lines.append(f"| larger above smaller, {_NAMES[stage]} | both | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def editor_table(editors: Records) -> str:
    lines = [
        "| judge of the editor's RL | training reward, first 5 | last 5 | gold before | gold after | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for stage in ("sft-think+verify", "gcpo"):
        found = [one for one in editors if one["stage"] == stage]
        if not found:
            continue
        # A judge that never gives a score leaves no training reward.
        rewards = [[value for _, value in one["reward"]] for one in found if one["reward"]]
        cells = [
            interval([float(np.mean(each[:5])) for each in rewards], 2),
            interval([float(np.mean(each[-5:])) for each in rewards], 2),
            interval([one["gold"][0][1] for one in found], 2),
            interval([one["gold"][-1][1] for one in found], 2),
            f"{np.mean([one['cpu_seconds'] for one in found]):.0f}",
        ]
        lines.append(f"| {_NAMES[stage]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def of(found: Records, way: str, metric: str) -> list[float]:
    return [one["metrics"][way][metric] for one in found if metric in one["metrics"][way]]


def difference(stages: Records, way: str, better: tuple[str, str], worse: tuple[str, str]) -> str:
    """Mean difference over the seeds that both have, and each seed's own."""
    values = {
        (one["size"], one["stage"], one["seed"]): one["metrics"][way]["pair_accuracy"]
        for one in stages
        if way in one["metrics"]
    }
    seeds = sorted(
        {seed for *name, seed in values if tuple(name) == better} & {s for *n, s in values if tuple(n) == worse}
    )
    found = [values[(*better, seed)] - values[(*worse, seed)] for seed in seeds]
    if not found:
        return "-"
    return f"{100 * np.mean(found):+.1f} ({', '.join(f'{100 * each:+.1f}' for each in found)})"


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and half the width of its 95 % interval over seeds."""
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) not in _STUDENT:
        return mean
    half = _STUDENT[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{mean} ± {half:.{digits}f}"


def curve(editors: Records, path: Path) -> None:
    """Training reward and gold score over the updates, a line per editor."""
    matplotlib.use("Agg")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    colours = {"sft-think+verify": "tab:blue", "gcpo": "tab:orange"}
    named: set[str] = set()
    for one in editors:
        label = None if one["stage"] in named else f"judge: {_NAMES[one['stage']]}"
        named.add(one["stage"])
        for axes, key in ((left, "reward"), (right, "gold")):
            axes.plot(*np.reshape(one[key], (-1, 2)).T, color=colours[one["stage"]], label=label, alpha=0.8)
    left.set_title("training reward (the judge's)")
    right.set_title("gold score of held-out edits")
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.set_ylim(0, 10)
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
