"""Turn a flow_grpo configuration for FLUX.1 Kontext or Qwen-Image-Edit into YAML for `editr1 grpo`, field by field.

    python integrations/flow_grpo/migrate.py CHECKOUT/config/grpo.py:counting_flux_kontext > kontext.yaml
    python integrations/flow_grpo/migrate.py CHECKOUT/config/grpo.py:counting_flux_kontext --gpus 8 --verifier SPEC

The configuration is a Python file and is RUN, as flow_grpo runs it: give only a file that you trust. It needs nothing
of flow_grpo, and `ml_collections` only if the file uses more of it than attributes.

Every field of the configuration is in the YAML: as a key, with a comment where the meaning differs, or in one of the
lists at its end: no counterpart, no key needed, not read by flow_grpo's own trainer, unknown.
Exit status: 0, or 2 if it cannot be converted.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import migrate_fields as fields

__all__ = ["Migration", "main", "migrate", "read_config"]


@dataclass
class Migration:
    """What became of each field.

    Attributes:
        written: our key to (value, where it comes from, how it differs or "").
        missing: fields (and choices in flow_grpo's code) without a counterpart, with what to do.
        implied: fields that need no key here: empty, or what always holds.
        unread: fields that flow_grpo's trainer for this model does not read.
        unknown: fields that this script does not know.
    """

    written: dict[str, tuple[Any, str, str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    implied: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        return {name: value for name, (value, _, _) in self.written.items()}

    def tells_of(self, name: str) -> bool:
        """Whether a key comes from the configuration's field, or it is listed as missing."""
        origins = {origin for _, origin, _ in self.written.values()}
        return name in origins or any(one.startswith((f"{name} =", f"{name}.")) for one in self.missing)

    def yaml(self, title: str) -> str:
        lines = [f"# {_one_line(title)}"]
        for name, (value, origin, differs) in self.written.items():
            lines += ["", f"# {origin}" + (f": {differs}" if differs else ""), f"{name}: {_in_yaml(value)}"]
        for heading, listed in (
            ("No counterpart here", self.missing),
            ("No key needed: empty, or so here in any case", self.implied),
            ("Not read by flow_grpo's own trainer for this model, hence left out", self.unread),
            ("UNKNOWN to this script: decide yourself", self.unknown),
        ):
            lines += ["", f"# {heading}:" + ("" if listed else " nothing")]
            lines += [f"#   {_one_line(name)}: {_one_line(text)}" for name, text in listed.items()]
        return "\n".join(lines) + "\n"


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _in_yaml(value: Any) -> str:
    """JSON is YAML, but for numbers like 1e-08, which YAML 1.1 reads as text unless they have a point."""
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


class _Attributes(dict[str, Any]):
    """What the host's files use of `ml_collections.ConfigDict`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _load_source(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _modules_it_imports() -> Iterator[None]:
    """`imp`, which Python 3.12 has no more, and `ml_collections` if it is missing, while a configuration is read."""
    stand_ins = {"imp": {"load_source": _load_source}}
    if importlib.util.find_spec("ml_collections") is None:
        stand_ins["ml_collections"] = {"ConfigDict": _Attributes}
    before = {name: sys.modules.get(name) for name in stand_ins}
    for name, attributes in stand_ins.items():
        sys.modules[name] = module = ModuleType(name)
        module.__dict__.update(attributes)
    try:
        yield
    finally:
        for name, module_before in before.items():
            sys.modules.pop(name, None)
            if module_before is not None:
                sys.modules[name] = module_before


def read_config(path: Path, name: str) -> tuple[dict[str, Any], int | None]:
    """Run the file, and its function `name`.

    Returns:
        Fields by dotted name, and the number of GPUs that the function counts on (`gpu_number = N` in its source).

    Raises:
        ValueError: there is no such file or function.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with _modules_it_imports():
        module = _load_source("flow_grpo_config", str(path))
        function: Callable[[], Any] | None = getattr(module, name, None)
        if not callable(function):
            raise ValueError(f"{path} has no function {name!r}")
        config = function()
    return dict(_flat(config)), _gpu_number(path, name)


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if hasattr(value, "items") and prefix + name not in fields.WHOLE:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, dict(value.items()) if hasattr(value, "items") else value


def _gpu_number(path: Path, name: str) -> int | None:
    """The number is a local name of the function and not in its result, so it is read from the source."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for line in node.body:
                if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "gpu_number":
                    return int(ast.literal_eval(line.value))
    return None


def migrate(
    config: Mapping[str, Any], host_gpus: int, gpus: int | None = None, verifier: str | None = None
) -> Migration:
    """Convert the fields of a configuration written for `host_gpus` processes to ours on `gpus` (None: as many).

    Raises:
        ValueError: another model than Kontext or Qwen-Image-Edit, or an epoch that these processes cannot share.
    """
    family = fields.family_of(str(config.get("pretrained.model", "")))
    made = Migration()
    fields.write_all(made.written, made.missing, config, family, host_gpus, gpus or host_gpus)
    if verifier is not None:
        made.written["verifier"] = (verifier, "--verifier", "in place of reward_fn")
    handled = {name for names in fields.READ.values() for name in names}
    for name, value in config.items():
        if name in fields.READ[family]:
            if not made.tells_of(name):
                made.implied[name] = value
        elif name in handled or name in fields.KNOWN_UNREAD:
            made.unread[name] = value
        else:
            made.unknown[name] = value
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="FILE.py:FUNCTION of flow_grpo; the file is run")
    parser.add_argument("--host-gpus", type=int, help="processes it was written for; else read from its source")
    parser.add_argument("--gpus", type=int, help="processes that you will train on; default: as many")
    parser.add_argument("--verifier", help="spec of the judge that takes the place of its rewards")
    options = parser.parse_args(argv)
    path, _, name = options.config.rpartition(":")
    try:
        config, found = read_config(Path(path), name)
        host_gpus = options.host_gpus or found
        if not host_gpus:
            raise ValueError("for how many processes was it written? Its source does not tell: give --host-gpus")
        made = migrate(config, host_gpus, options.gpus, options.verifier)
    except ValueError as error:
        print(f"migrate.py: {error}", file=sys.stderr)
        return 2
    title = f"From flow_grpo's {os.path.basename(path)}:{name}, for {options.gpus or host_gpus} process(es)"
    print(made.yaml(title), end="")
    counts = f"{len(made.missing)} without counterpart, {len(made.unread)} unread there, {len(made.unknown)} unknown"
    print(f"{len(made.written)} keys written; {counts}: see the end of the YAML", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
