"""The demo's two pictures; needs the extra `[report]` (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editr1_plugins.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["before_after", "curve", "require_matplotlib"]


def require_matplotlib() -> Any:
    """matplotlib's pyplot with a backend that needs no screen.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError('pictures need matplotlib: pip install "editr1-plugins[report]"') from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def before_after(
    path: Path, rows: Sequence[tuple[Image, Image, Image, Image]], captions: Sequence[str], *, across: int = 2
) -> None:
    """A table of source | goal | before | after, `across` edits side by side, each under its caption."""
    plt = require_matplotlib()
    titles = ("source", "goal", "before RL", "after RL")
    lines = -(-len(rows) // across)
    # One empty column between neighbours.
    figure, axes = plt.subplots(lines, 5 * across - 1, figsize=(1.05 * (5 * across - 1), 1.42 * lines), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, (images, caption) in enumerate(zip(rows, captions, strict=True)):
        line, first = number // across, 5 * (number % across)
        for column, (image, title) in enumerate(zip(images, titles, strict=True)):
            axis = axes[line][first + column]
            axis.imshow(image, interpolation="nearest")
            if line == 0:
                axis.set_title(title, fontsize=8, pad=16)
        axes[line][first].text(0, 1.06, caption, transform=axes[line][first].transAxes, fontsize=7)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.93, wspace=0.06, hspace=0.32)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def curve(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Left: held-out gold score over updates, with its control. Right: what training saw, the reward.

    Each run has `trained` and `control`, each with `heldout` and `reward`: lists of [update, value].
    """
    plt = require_matplotlib()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for number, run in enumerate(runs):
        for arm, colour in (("trained", "#1f6f8b"), ("control", "#b0413e")):
            label = {"trained": "EditRRMReward", "control": "shuffled advantages"}[arm] if number == 0 else None
            for axis, series in ((left, "heldout"), (right, "reward")):
                steps, values = zip(*run[arm][series], strict=True)
                shown = values if series == "heldout" else _smoothed(values)
                axis.plot(steps, shown, color=colour, alpha=0.85, label=label)
    left.set(title="Held-out edits, gold measure (ODE sampler)", xlabel="update", ylabel="score, 0 to 10", ylim=(0, 10))
    right.set(title="Training reward (tau of the embedded judge)", xlabel="update", ylim=(0, 10))
    left.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _smoothed(values: Sequence[float], width: int = 5) -> list[float]:
    halves = width // 2
    around = [values[max(0, i - halves) : i + halves + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in around]
