"""flow_grpo, its forks and PKU's Edit-R1 (UniWorld): a reward named "editr1" beside the host's own, no file edited.

Their trainers make a reward of `{name: weight}` by `flow_grpo.rewards.multi_score` once the configuration is read, and
that is a Python file: one of ours calls `install` and hands on the host's own configuration (`host_config`).
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.adapters.conversion import EditOrReason, as_edit, first_image
from editr1_plugins.adapters.host_modules import checkout_module
from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.errors import ConfigError, DataError

__all__ = ["UNSCORED", "MultiScore", "host_config", "install"]

#: What the hosts' evaluation leaves out of its means and captions.
UNSCORED: Final = -10.0

_log = logging.getLogger(__name__)


class MultiScore:
    """What `multi_score` returns there: the host's own rewards, ours beside them, and the weighted sum of all.

    Args:
        scorer: judges the edits.
        weight: of our reward in "avg".
        inner: the host's function for its own rewards; None where there are no others.
        name: of our reward.
        image_folder: below which the paths in the metadata are opened, for hosts that hand over no `ref_images`.
        image_column: where the metadata has the source image then: a path, or an image in any form.

    Called as the host calls it, it returns lists of one number per row, which the host averages and logs:

    - `name`: 0..`top` of the scorer (the hosts' own rewards lie in 0..1). In training (`only_strict=True`) a missing
      score gets a mean (see `missing.Filling`); in evaluation `UNSCORED`, which the host leaves out.
    - `name_missing`: 1.0 where there was no score, else 0.0.
    - "avg": the host's weighted sum plus `weight` times ours; `UNSCORED` where ours is.
    """

    def __init__(
        self,
        scorer: HostScorer,
        weight: float = 1.0,
        inner: Callable[..., Any] | None = None,
        *,
        name: str = "editr1",
        image_folder: str | os.PathLike[str] | None = None,
        image_column: str = "image",
    ) -> None:
        self._scorer, self._weight, self._inner, self._name = scorer, float(weight), inner, name
        self._folder, self._column = image_folder, image_column

    def __call__(
        self, images: Any, prompts: Sequence[str], metadata: Any, ref_images: Any = None, only_strict: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Judge a batch.

        Args:
            images: the edits, a tensor (rows, channels, height, width) of floats in 0..1.
            prompts: the instructions.
            metadata: a mapping per row.
            ref_images: the source images, one per row.
            only_strict: False in evaluation.

        Raises:
            DataError: a row has no source or no instruction.
            UnscoredError: too many scores are missing, in training.
        """
        details = self._of_the_host(images, prompts, metadata, ref_images, only_strict)
        edits = self._edits(images, prompts, metadata, ref_images)
        values, missing = self._filled(edits) if only_strict else self._as_judged(edits)
        ours = [self._weight * value for value in values]
        theirs = details.get("avg")
        total: list[Any] = ours if theirs is None else [a + b for a, b in zip(theirs, ours, strict=True)]
        if not only_strict:
            total = [UNSCORED if lacks else value for value, lacks in zip(total, missing, strict=True)]
        details.update({self._name: values, f"{self._name}_missing": [float(each) for each in missing], "avg": total})
        return details, {}

    def _of_the_host(
        self, images: Any, prompts: Sequence[str], metadata: Any, ref_images: Any, only_strict: bool
    ) -> dict[str, Any]:
        if self._inner is None:
            return {}
        # Older versions of flow_grpo hand over no source images.
        known = "ref_images" in inspect.signature(self._inner).parameters
        more = {"ref_images": ref_images} if known else {}
        return dict(self._inner(images, prompts, metadata, only_strict=only_strict, **more)[0])

    def _edits(self, images: Any, prompts: Sequence[str], metadata: Any, ref_images: Any) -> list[EditOrReason]:
        sources = self._sources(metadata, len(prompts)) if ref_images is None else ref_images
        if not len(images) == len(prompts) == len(sources):
            raise DataError(f"{len(images)} edits, {len(prompts)} prompts and {len(sources)} source images do not fit")
        return [
            as_edit(first_image(source), image, prompt, row=row, folder=self._folder)
            for row, (source, image, prompt) in enumerate(zip(sources, images, prompts, strict=True))
        ]

    def _sources(self, metadata: Any, rows: int) -> list[Any]:
        found = list(metadata) if isinstance(metadata, Sequence) else []
        if len(found) != rows or not all(isinstance(each, Mapping) and each.get(self._column) for each in found):
            raise DataError(
                f"no source images: the trainer hands over no ref_images, and the metadata has no {self._column!r} "
                "for each row (image_column=..., image_folder=...)"
            )
        return [each[self._column] for each in found]

    def _filled(self, edits: Sequence[EditOrReason]) -> tuple[list[float], list[bool]]:
        scored = self._scorer.score(edits)
        return scored.values, [outcome.score is None for outcome in scored.outcomes]

    def _as_judged(self, edits: Sequence[EditOrReason]) -> tuple[list[float], list[bool]]:
        outcomes = self._scorer.judge(edits)
        values = [UNSCORED if each.score is None else self._scorer.scaled(each.score) for each in outcomes]
        return values, [each.score is None for each in outcomes]


def install(
    reward: Any = None,
    *,
    name: str = "editr1",
    module: str = "flow_grpo.rewards",
    image_folder: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    **settings: Any,
) -> None:
    """Let the host's `multi_score` know one more name; call it before the trainer makes its reward.

    Again in the same process, it replaces what it installed before. The judge is built when the trainer asks for its
    reward, so that wrong settings end the run before anything is sampled.

    Args:
        reward: an `EditRRMReward`; else one is made of `settings`.
        name: what our reward is called in `config.reward_fn`; one of the host's own names is ours from then on.
        module: where `multi_score` is, for forks that renamed the package.
        image_folder, image_column: see `MultiScore`.
        settings: of `HostScorer`; here `top=1.0` by default, and `one_by_one=True`, since batches there are small.

    Raises:
        MissingExtraError: the host cannot be imported.
        ConfigError: wrong settings, or the module has no `multi_score`.
    """
    checkout = "flow_grpo (or of PKU-YuanGroup/Edit-R1), and start the trainer there"
    rewards = checkout_module(module, module, checkout)
    original = getattr(rewards, "multi_score", None)
    original = getattr(original, "editr1_wraps", original)
    if not callable(original):
        raise ConfigError(f"{module} has no function multi_score; this is no flow_grpo that we know")
    scorer = HostScorer(reward, **{"top": 1.0, "one_by_one": True, **settings})

    def multi_score(device: Any, score_dict: Mapping[str, float]) -> Callable[..., Any]:
        weights = dict(score_dict.items())
        weight = weights.pop(name, None)
        if weight is None:
            return original(device, score_dict)  # type: ignore[no-any-return]
        # Reading the settings builds the judge's parts.
        _log.info("reward %r with weight %s: %s", name, weight, scorer.reward.settings)
        inner = original(device, weights) if weights else None
        return MultiScore(scorer, weight, inner, name=name, image_folder=image_folder, image_column=image_column)

    multi_score.editr1_wraps = original  # type: ignore[attr-defined]
    rewards.multi_score = multi_score


def host_config(file: str | os.PathLike[str], name: str, weights: Mapping[str, float] | None = None) -> Any:
    """The configuration `name` of the host's own Python file, with other rewards.

    Args:
        file: as `--config` takes it, relative to the working directory; it is executed, as the host would.
        name: what stands after the colon in `--config`.
        weights: the rewards of the run; default: ours alone.

    Raises:
        ConfigError: no such file, or no configuration of that name in it.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"no file {path}: start the trainer in the host's own folder, as its scripts do")
    spec = importlib.util.spec_from_file_location(f"editr1_host_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise ConfigError(f"{path} has no configuration {name!r}")
    config = module.get_config(name)
    config.reward_fn = dict(weights or {"editr1": 1.0})
    return config
