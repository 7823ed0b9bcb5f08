"""The data card: README.md of the data set, made from counts; the same counts give the same text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .config import ColdStartConfig
from .report import ColdStartReport

__all__ = ["card_text"]


def card_text(config: ColdStartConfig, report: ColdStartReport, columns: Mapping[str, str]) -> str:
    """Markdown with the metadata that the hub reads."""
    parts = [
        _metadata(config, report),
        f"# {_line(config.dataset.title)}",
        f"{report.examples} judged edits with a reasoning trace each, made by `editr1 coldstart` (the cold start of"
        " Edit-R1, arXiv 2604.27505): several judges wrote traces of each edit, a strong judge decided each principle,"
        " and the trace that agrees best with it was kept.",
        "## Columns",
        _table(("column", "what it holds"), [(f"`{name}`", text) for name, text in columns.items()]),
        "## How it was made",
        _settings(config),
        "## Counts",
        _table(("category", "selected rows", "examples"), _categories(report)),
        _table(("drawn as", "rows"), list(report.parts.items())),
    ]
    if report.traits:
        parts.append(_table(("trait of the instruction", "rows"), list(report.traits.items())))
    parts += [_scan(report), "### Stages and failures", _table(("stage", "items", "failed", "why"), _stages(report))]
    parts += ["### Judges", _table(("judge", "traces", "with a score", "chosen"), _judges(report)), _shares(report)]
    parts += ["## Cost in tokens", _cost(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(config: ColdStartConfig, report: ColdStartReport) -> str:
    lines = ["---"]
    if config.dataset.license:
        lines.append(f"license: {json.dumps(config.dataset.license)}")
    lines += [
        f"pretty_name: {json.dumps(_line(config.dataset.title))}",
        "tags:",
        "- image-editing",
        "- reward-model",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*.parquet",
        "---",
    ]
    return "\n".join(lines)


def _settings(config: ColdStartConfig) -> str:
    lines = [f"- seed {config.seed}"]
    for editor in config.candidates:
        what = _model(editor.pipeline) or (f"column {editor.column}" if editor.column else None)
        what = what or (f"folder {editor.folder}" if editor.folder else "given by the caller")
        lines.append(f"- editor `{editor.name}`: {_line(what)}")
    for judge in config.traces.judges:
        words = " with a system text of its own" if judge.system or judge.system_file else ""
        drawn = f"{judge.samples} trace{'s' if judge.samples > 1 else ''}"
        drawn += f" at temperature {judge.temperature:g}" if ":" in (judge.spec or "") else ""
        lines.append(f"- judge `{judge.name}`: {_spec(judge.spec)}, {judge.mode}, {drawn}{words}")
    lines.append(f"- principles by {_spec(config.decompose.spec)}, gold verdicts by {_spec(config.verify.spec)}")
    if config.choose.min_accuracy:
        lines.append(f"- edits whose best trace agrees with less than {config.choose.min_accuracy:g} are left out")
    return "\n".join(lines)


def _spec(spec: str | None) -> str:
    """A spec without the address behind it, which may hold a password and means nothing elsewhere."""
    return f"`{_line(spec.partition('@http')[0])}`" if spec else "an object of the caller"


def _model(pipeline: str | None) -> str | None:
    """A hub id, or the name of a folder of this machine."""
    return pipeline if pipeline is None or not Path(pipeline).exists() else Path(pipeline).name


def _categories(report: ColdStartReport) -> list[tuple[str, int, int]]:
    return [(name, count, report.example_categories.get(name, 0)) for name, count in report.categories.items()]


def _scan(report: ColdStartReport) -> str:
    scan = report.scan
    if not scan:
        return ""
    unusable = scan.get("unusable")
    why = "; ".join(f"{_line(str(k))}: {n}" for k, n in unusable.items()) if isinstance(unusable, Mapping) else ""
    told = f"The data has {scan.get('rows')} rows, {scan.get('duplicates')} of them duplicates"
    return f"{told}{', unusable: ' + why if why else ''}."


def _stages(report: ColdStartReport) -> list[tuple[str, int, int, str]]:
    return [
        (name, each.items, each.failed, "; ".join(f"{_line(kind)}: {n}" for kind, n in each.failures.items()) or "-")
        for name, each in report.stages.items()
    ]


def _judges(report: ColdStartReport) -> list[tuple[str, int, int, int]]:
    return [(name, all_, scored, report.chosen.get(name, 0)) for name, (scored, all_) in report.judged.items()]


def _shares(report: ColdStartReport) -> str:
    if report.accuracy is None or report.met is None:
        return ""
    agree = f"The chosen traces agree with {report.accuracy:.1%} of the gold verdicts"
    return f"{agree}; {report.met:.1%} of these are 1 (met)."


def _cost(report: ColdStartReport) -> str:
    if not report.spent:
        return "No model that counts tokens was asked."
    rows = [
        (
            name,
            each.requests,
            each.prompt,
            each.cached,
            each.completion,
            "-" if each.cost is None else f"{each.cost:.4f}",
        )
        for name, each in report.spent.items()
    ]
    total = [sum(getattr(each, kind) for each in report.spent.values()) for kind in ("requests", "prompt", "cached")]
    done = sum(each.completion for each in report.spent.values())
    rows.append(("**all**", *total, done, "-" if report.cost is None else f"{report.cost:.4f}"))
    head = ("model", "requests", "prompt tokens", "of these cached", "completion tokens", "cost")
    return _table(head, rows) + "\n\nCosts are by the prices in the configuration, per million tokens."


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _line(text: str) -> str:
    """Text on one line that ends no cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")
