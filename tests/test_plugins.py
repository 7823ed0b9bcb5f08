"""Doors: what installed packages add is found; what is broken is contained, named and quoted."""

import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from editr1_plugins import hookspecs
from editr1_plugins.errors import ComponentError, ConfigError, Editr1Error, MissingExtraError, PluginError
from editr1_plugins.plugins import KINDS, Entry, Registry, parse_spec, registry, resolve

GOOD = """
    from editr1_plugins import hookimpl

    class Judge:
        def __init__(self, argument=None):
            self.argument = argument

        def verify(self, edits, principles):
            return []

    @hookimpl
    def register_verifiers(register):
        register("judge", Judge, summary="a judge")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one plugin module on sys.path, as an installer would; each test sees only its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("EDITR1_LOAD_PLUGINS", raising=False)
    before = set(sys.modules)

    def put(
        dist: str, source: str, *, module: str | None = None, plugin: str | None = None, version: str = "1.0"
    ) -> None:
        module = module or dist.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[editr1]\n{plugin or module} = {module}\n")
        registry.cache_clear()

    registry.cache_clear()
    yield put
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def only_failure() -> str:
    [failure] = registry().failures
    return str(failure)


class TestFinding:
    def test_our_own_parts_come_through_the_doors(self) -> None:
        names = {(entry.kind, entry.name) for entry in registry().entries if entry.origin == registry().core}
        assert {("verifier", "measure"), ("decomposer", "rules"), ("algorithm", "flow_grpo")} <= names

    def test_an_installed_plugin_is_found_and_names_its_origin(self, install: Install) -> None:
        install("Acme-Judges", GOOD, module="acme", plugin="acme", version="2.3")
        entry = registry().find("verifier", "judge")
        assert (entry.qualified, entry.origin.version, entry.origin.plugin) == ("acme-judges/judge", "2.3", "acme")
        assert entry.summary == "a judge"

    @pytest.mark.parametrize("spec", ["judge", "acme-judges/judge", "Acme_Judges/judge"])
    def test_specs_by_name_and_by_distribution(self, install: Install, spec: str) -> None:
        install("acme-judges", GOOD)
        assert resolve("verifier", spec).argument is None  # type: ignore[attr-defined]

    def test_a_new_object_each_time(self, install: Install) -> None:
        install("acme", GOOD)
        assert resolve("verifier", "judge") is not resolve("verifier", "judge")

    def test_listing_needs_no_factory(self, install: Install) -> None:
        install("acme", GOOD.replace('"judge", Judge', '"judge", lambda: 1 / 0'))
        assert {"judge", "measure"} <= {entry.name for entry in registry().of("verifier")}

    def test_loading_plugins_imports_no_torch(self) -> None:
        code = "import sys; from editr1_plugins.plugins import registry; registry(); print('torch' in sys.modules)"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# One test per door: what a plugin registers there arrives, and comes out as its factory made it.


def register_and_resolve(install: Install, kind: str, body: str) -> object:
    source = f"""
        from editr1_plugins import hookimpl

        class Thing:
            {body}

        @hookimpl
        def register_{kind}s(register):
            register("thing", Thing, summary="s")
    """
    install("acme", source)
    made = resolve(kind, "acme/thing")
    assert type(made).__name__ == "Thing"
    return made


def test_register_verifiers(install: Install) -> None:
    register_and_resolve(install, "verifier", "def verify(self, edits, principles): return []")


def test_register_decomposers(install: Install) -> None:
    register_and_resolve(install, "decomposer", "def decompose(self, requests): return []")


def test_register_guards(install: Install) -> None:
    register_and_resolve(install, "guard", "needs_judge = False; inspect = lambda self, *_: []")


def test_register_pipelines(install: Install) -> None:
    register_and_resolve(install, "pipeline", "pass")


def test_register_algorithms(install: Install) -> None:
    methods = "configured = prepare = loss = idle = lambda self, *_: None"
    register_and_resolve(install, "algorithm", f"stochastic = True; {methods}")


def test_our_own_algorithm_fits_its_door() -> None:
    assert type(resolve("algorithm", "flow_grpo")).__name__ == "FlowGRPO"


def test_register_benchmarks(install: Install) -> None:
    register_and_resolve(install, "benchmark", "pass")


def test_kinds_and_hooks_are_the_same_list() -> None:
    hooks = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("register_")]
    assert sorted(f"register_{kind}s" for kind in KINDS) == hooks


class TestBrokenPlugins:
    """Each is contained: the others still load, nothing half-done stays, and a miss quotes it."""

    CASES: ClassVar = {
        "import": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        "syntax": ("def (:", "SyntaxError"),
        "exits": ("import sys\nsys.exit('usage: ...')", "SystemExit: usage: ..."),
        "misspelt": (GOOD.replace("register_verifiers", "register_verifier"), "unknown hook 'register_verifier'"),
        "argument": (GOOD.replace("(register):", "(register, config):"), "'config'"),
        "unmarked": (GOOD.replace("    @hookimpl\n", ""), "no function in it is marked with @hookimpl"),
        "half-way": (GOOD + "        raise RuntimeError('half-way')\n", "RuntimeError: half-way"),
        "twice": (GOOD + '        register("judge", Judge)\n', "verifier 'judge' is registered twice"),
        "bad name": (GOOD.replace('"judge"', '"a/b"'), "name 'a/b' is malformed"),
        "name with colon": (GOOD.replace('"judge"', '"a:b"'), "name 'a:b' is malformed"),
        "no name": (GOOD.replace('"judge"', "None"), "name None is malformed"),
        "no factory": (GOOD.replace("Judge, summary", "3, summary"), "must be callable, got int"),
        "needs two": (
            GOOD.replace("Judge, summary", "lambda a, b: 1, summary"),
            "callable as factory() or factory(arg",
        ),
        "bad keyword": (GOOD.replace("summary=", "sumary="), "TypeError"),
        "requires string": (GOOD.replace("summary=", 'requires="openai", summary='), "must be a tuple of strings"),
        "requires nonsense": (GOOD.replace("summary=", 'requires=("a b",), summary='), "write 'module' or"),
        "async": (GOOD.replace("    def register_v", "    async def register_v"), "register(...) and return nothing"),
        "generator": (GOOD.replace('register("judge"', 'yield register("judge"'), "return nothing"),
    }

    @pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
    @pytest.mark.parametrize("case", CASES)
    def test_contained_named_listed_and_quoted(self, install: Install, case: str) -> None:
        source, reason = self.CASES[case]
        install("broken-one", source, version="0.7")
        install("acme", GOOD)
        assert resolve("verifier", "judge").verify([], []) == []
        assert {entry.origin.dist for entry in registry().entries} == {"editr1-plugins", "acme"}
        assert only_failure().startswith("plugin 'broken_one' (broken-one 0.7) failed to load: ")
        assert reason in only_failure()
        assert "\n" not in only_failure()
        with pytest.raises(PluginError, match="no verifier 'missing'") as miss:
            resolve("verifier", "missing")
        assert only_failure() in str(miss.value)

    def test_two_broken_plugins_are_both_quoted(self, install: Install) -> None:
        install("one", "import no_such_a")
        install("two", "import no_such_b")
        with pytest.raises(PluginError, match=r"no_such_a.*no_such_b"):
            resolve("guard", "x")

    def test_a_name_that_one_distribution_uses_twice_in_two_plugins(self, install: Install, tmp_path: Path) -> None:
        install("acme", GOOD, module="acme_a")
        (tmp_path / "acme_b.py").write_text(textwrap.dedent(GOOD))
        (tmp_path / "acme-1.0.dist-info" / "entry_points.txt").write_text("[editr1]\na = acme_a\nb = acme_b\n")
        assert "registered by another plugin of acme" in only_failure()
        assert registry().find("verifier", "judge").origin.plugin == "a"


class TestNames:
    def test_an_ambiguous_name_lists_the_choices(self, install: Install) -> None:
        install("acme", GOOD)
        install("zeta", GOOD)
        with pytest.raises(PluginError, match="several packages; write one of: acme/judge, zeta/judge"):
            resolve("verifier", "judge")
        assert type(resolve("verifier", "zeta/judge")).__module__ == "zeta"
        entries = [entry for entry in registry().of("verifier") if entry.name == "judge"]
        assert [registry().spec(entry) for entry in entries] == ["acme/judge", "zeta/judge"]

    def test_our_own_names_are_never_shadowed(self, install: Install) -> None:
        install("acme", GOOD.replace('"judge"', '"measure"'))
        assert registry().find("verifier", "measure").origin == registry().core
        assert registry().find("verifier", "acme/measure").origin.dist == "acme"
        assert registry().spec(registry().find("verifier", "acme/measure")) == "acme/measure"
        assert registry().find("verifier", "editr1-plugins/measure").origin == registry().core

    def test_a_miss_lists_what_is_known_and_the_closest(self) -> None:
        with pytest.raises(PluginError, match=r"no verifier 'mesure', did you mean 'measure'\?; known: .*measure"):
            resolve("verifier", "mesure")

    def test_kinds_do_not_mix(self) -> None:
        with pytest.raises(PluginError, match="no guard 'measure'"):
            resolve("guard", "measure")
        with pytest.raises(ConfigError, match="unknown kind 'verifiers'; one of: verifier"):
            resolve("verifiers", "measure")

    def test_a_plugin_error_is_a_lookup_and_a_config_error(self) -> None:
        with pytest.raises(LookupError):
            resolve("verifier", "missing")
        with pytest.raises(ConfigError):
            resolve("verifier", "missing")


class TestSpecs:
    @pytest.mark.parametrize(
        ("spec", "name", "argument"),
        [
            ("measure", "measure", None),
            ("editr1-plugins/measure", "editr1-plugins/measure", None),
            ("openai:gpt-4o", "openai", "gpt-4o"),
            (
                "openai:Qwen/Qwen2.5-VL-7B@http://h:8000/v1",
                "openai",
                "Qwen/Qwen2.5-VL-7B@http://h:8000/v1",
            ),
            ("acme/openai:Qwen/Q@http://h:1/v1", "acme/openai", "Qwen/Q@http://h:1/v1"),
            ("transformers:/models/a b", "transformers", "/models/a b"),
            ("transformers:C:\\models", "transformers", "C:\\models"),
        ],
    )
    def test_split(self, spec: str, name: str, argument: str | None) -> None:
        assert parse_spec(spec) == (name, argument)

    @pytest.mark.parametrize("spec", ["", " ", "a b", "/a", "a/", "a/b/c", "//", ":x", "Qwen/Q@http://h", "-a", "a\n"])
    def test_malformed(self, spec: str) -> None:
        with pytest.raises(ConfigError, match="malformed spec"):
            parse_spec(spec)

    @pytest.mark.parametrize("spec", ["judge:", "judge: "])
    def test_a_colon_without_argument(self, spec: str) -> None:
        with pytest.raises(ConfigError, match="ends in a colon"):
            parse_spec(spec)

    def test_the_argument_reaches_the_factory_whole(self, install: Install) -> None:
        install("acme", GOOD)
        argument = "Qwen/Qwen2.5-VL-7B@http://h:8000/v1"
        for name in ("judge", "acme/judge"):
            assert resolve("verifier", f"{name}:{argument}").argument == argument  # type: ignore[attr-defined]

    def test_an_argument_that_the_factory_does_not_take(self) -> None:
        with pytest.raises(ConfigError, match="verifier 'measure' takes no argument; write 'measure' alone") as error:
            resolve("verifier", "measure:secret")
        assert "secret" not in str(error.value)

    def test_an_argument_that_is_missing(self, install: Install) -> None:
        install("acme", GOOD.replace("argument=None", "argument"))
        with pytest.raises(ConfigError, match="verifier 'judge' needs an argument; write judge:ARGUMENT"):
            resolve("verifier", "judge")


class TestObjects:
    def test_an_instance_passes_unchanged(self) -> None:
        class Judge:
            def verify(self, edits: object, principles: object) -> list[object]:
                return []

        judge = Judge()
        assert resolve("verifier", judge) is judge  # type: ignore[comparison-overlap, call-overload]

    @pytest.mark.parametrize(
        ("kind", "thing", "reason"),
        [
            ("verifier", object(), "got object, which has no verify"),
            ("guard", object(), "got object, which has no inspect and no needs_judge"),
            ("decomposer", None, "got None"),
            ("verifier", Registry, "got the class Registry, not an instance"),
        ],
    )
    def test_what_is_no_object_of_the_kind_is_refused(self, kind: str, thing: object, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason):
            resolve(kind, thing)

    @pytest.mark.parametrize(
        ("factory", "reason"),
        [
            ("lambda: 3", "got int, which has no verify"),
            ("lambda: None", "got None"),
            ("lambda: Judge", "got the class Judge"),
        ],
    )
    def test_what_a_factory_returns_is_checked(self, install: Install, factory: str, reason: str) -> None:
        install("acme", GOOD.replace("Judge, summary", f"{factory}, summary"))
        with pytest.raises(
            ComponentError, match=rf"'judge' of plugin 'acme' \(acme 1.0\) broke its protocol: {reason}"
        ):
            resolve("verifier", "judge")

    def test_a_factory_that_raises_is_named(self, install: Install) -> None:
        install("acme", GOOD.replace("self.argument = argument", "raise KeyError('weights')"))
        with pytest.raises(ComponentError, match=r"'judge' of plugin 'acme' \(acme 1.0\) raised KeyError: 'weights'"):
            resolve("verifier", "judge")

    def test_our_own_errors_in_a_factory_pass(self, install: Install) -> None:
        source = GOOD.replace("self.argument = argument", "raise ConfigError('what to do')")
        install(
            "acme",
            source.replace("import hookimpl", "import hookimpl\n    from editr1_plugins.errors import ConfigError"),
        )
        with pytest.raises(ConfigError, match=r"^what to do$"):
            resolve("verifier", "judge")


class TestRequirements:
    def install_requiring(self, install: Install, *requires: str) -> None:
        source = GOOD.replace("summary=", f"requires={requires!r}, summary=")
        install("acme", source.replace("self.argument = argument", "raise AssertionError('must not be called')"))

    @pytest.mark.parametrize(
        ("requires", "command"),
        [
            (("no_such_mod",), "the module no_such_mod; install with: pip install no_such_mod"),
            (("no_such_mod.sub",), "the module no_such_mod.sub; install with: pip install no_such_mod"),
            (("no_such_mod[ocr]",), 'the module no_such_mod; install with: pip install "acme[ocr]"'),
            (("json", "no_such_mod[ocr]"), 'the module no_such_mod; install with: pip install "acme[ocr]"'),
            (
                ("no_such_a[x]", "no_such_b[x]", "no_such_c"),
                'the modules no_such_a, no_such_b, no_such_c; install with: pip install "acme[x]" no_such_c',
            ),
        ],
    )
    def test_missing_modules_say_what_to_install(
        self, install: Install, requires: tuple[str, ...], command: str
    ) -> None:
        self.install_requiring(install, *requires)
        with pytest.raises(MissingExtraError) as error:
            resolve("verifier", "judge")
        assert str(error.value) == f"verifier 'judge' needs {command}"
        assert registry().find("verifier", "judge").requires == requires  # still listed

    def test_present_modules_are_no_obstacle(self, install: Install) -> None:
        install("acme", GOOD.replace("summary=", 'requires=("json", "email.mime[extra]", "sys"), summary='))
        assert resolve("verifier", "judge").verify([], []) == []

    def test_it_is_an_import_error(self, install: Install) -> None:
        self.install_requiring(install, "no_such_mod")
        with pytest.raises(ImportError):
            resolve("verifier", "judge")
        with pytest.raises(Editr1Error):
            resolve("verifier", "judge")

    def test_ours_name_our_distribution(self) -> None:
        core = registry().core
        assert core is not None
        own = Registry(core)
        own.entries = (
            Entry(kind="verifier", name="j", factory=dict, summary="", requires=("no_such_mod[openai]",), origin=core),
        )
        with pytest.raises(MissingExtraError, match=r'pip install "editr1-plugins\[openai\]"$'):
            own.resolve("verifier", "j:model")


class TestRestriction:
    @pytest.mark.parametrize(
        ("value", "loaded"),
        [
            (None, {"acme", "zeta-pack"}),
            ("", set()),
            (" , ", set()),
            ("acme", {"acme"}),
            ("zeta_pack", {"zeta-pack"}),
            ("Zeta.Pack, acme", {"acme", "zeta-pack"}),
            ("plug", {"zeta-pack"}),
        ],
    )
    def test_by_distribution_or_entry_point(
        self, install: Install, monkeypatch: pytest.MonkeyPatch, value: str | None, loaded: set[str]
    ) -> None:
        install("acme", GOOD)
        install("zeta-pack", GOOD.replace("judge", "other"), plugin="plug")
        if value is not None:
            monkeypatch.setenv("EDITR1_LOAD_PLUGINS", value)
        assert {entry.origin.dist for entry in registry().entries} == {"editr1-plugins", *loaded}
        assert {origin.dist for origin in registry().left_out} == {"acme", "zeta-pack"} - loaded
        assert registry().failures == ()

    def test_what_is_left_out_is_not_imported_and_a_miss_says_so(
        self, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("acme", "raise SystemError('imported')")
        monkeypatch.setenv("EDITR1_LOAD_PLUGINS", "")
        with pytest.raises(PluginError, match=r"plugin 'acme' \(acme 1.0\) is left out by EDITR1_LOAD_PLUGINS"):
            resolve("verifier", "judge")
        assert "acme" not in sys.modules

    def test_a_name_that_is_not_installed_is_listed(self, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
        install("acme", GOOD)
        monkeypatch.setenv("EDITR1_LOAD_PLUGINS", "acme,amce")
        assert only_failure().startswith("plugin 'amce' (not installed) failed to load: ")
        assert resolve("verifier", "judge").verify([], []) == []
