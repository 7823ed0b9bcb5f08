"""The cold start as a whole: stages in their order, each going on where it was.

Source: Edit-R1 (arXiv 2604.27505), section 3.2. What is not in the paper and was decided here: rows are drawn by a
digest of their content; a candidate without a usable trace or gold verdicts is left out, with its reason; verifiers
that are no chat models may write traces and gold verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ...errors import ConfigError
from ...reward.bulk_rows import writing_alone
from ...types import Decomposer, Verifier
from .candidates import make_candidates
from .config import STAGES, ColdStartConfig, Stage
from .dataset import choose_traces, write_dataset
from .decompose import decompose_rows
from .report import ColdStartReport, report_of
from .run import Editor, Parts, Progress, Run
from .select import select_rows
from .traces import write_traces
from .verify import write_gold

__all__ = ["run_coldstart"]

_WORK: Final[Mapping[Stage, Callable[[Run], object]]] = {
    "select": select_rows,
    "decompose": decompose_rows,
    "candidates": make_candidates,
    "traces": write_traces,
    "verify": write_gold,
    "choose": choose_traces,
    "dataset": write_dataset,
}
_FORMAT: Final = {"made by": "editr1 coldstart 1"}


def run_coldstart(
    config: ColdStartConfig,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    judges: Mapping[str, Verifier] | None = None,
    gold: Verifier | None = None,
    decomposer: Decomposer | None = None,
    editors: Mapping[str, Editor] | None = None,
    stages: Sequence[Stage] = STAGES,
    limit: int | None = None,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ColdStartReport:
    """Run stages of a cold start in `config.output`; the data set is in `dataset/` there.

    What was stopped, even by kill -9, goes on where it was: nothing that has an outcome is done again. An item that
    fails is an outcome with a reason. The same configuration gives the same data set, bytes and all, however often it
    was stopped, as long as the models answer the same.

    Args:
        config: everything that outcomes depend on.
        rows: the data itself, as mappings with the columns that `config.data` names (images or bytes, no paths).
        judges: verifiers by the names in `config.traces.judges`, in the place of their specs. Of a `GenerativeVerifier`
            only the model is used: mode, temperature and samples are the configuration's.
        gold: the strong judge, in the place of `config.verify.spec`.
        decomposer: in the place of `config.decompose.spec`.
        editors: functions (source, instruction, seed) -> edited image, by the names in `config.candidates`.
        stages: which ones, run in the order of `STAGES`.
        limit: of the selected rows, take this many at most; a later run with a higher limit, or none, goes on.
        retry_failed: try items again that have a reason instead of an outcome.
        progress: called as items get done.

    Raises:
        ConfigError: a setting is wrong, differs from what the folder was made with, or another run writes there.
        DataError: the data cannot be read, or a stage's file is damaged.
        ComponentError: the filter does not answer at all.
        OSError: the disk is full or gone.
    """
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"no stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
    parts = Parts(rows=rows, judges=judges or {}, gold=gold, decomposer=decomposer, editors=editors or {})
    _check_parts(config, parts)
    run = Run(config, parts, limit=limit, retry_failed=retry_failed, progress=progress)
    with writing_alone(run.folder.path, _FORMAT), run:
        report: object = None
        for stage in STAGES:
            if stage in stages:
                report = _WORK[stage](run)
        return report if isinstance(report, ColdStartReport) else report_of(run)


def _check_parts(config: ColdStartConfig, parts: Parts) -> None:
    for what, given, known in (
        ("judges", parts.judges, [judge.name for judge in config.traces.judges]),
        ("editors", parts.editors, [editor.name for editor in config.candidates]),
    ):
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(
                f"{what}: {unknown[0]!r} is not in the configuration, which has {', '.join(known) or 'none'}"
            )
