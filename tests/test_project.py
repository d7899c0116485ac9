"""The project's own rules: floors, file sizes, forbidden ways, what imports on a bare machine, what the README says."""

import ast
import configparser
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.papers import PAPERS

ROOT = Path(__file__).resolve().parents[1]

# A module imports only from floors below its own. Packages of one row stand side by side and do not import each other.
FLOORS = [
    {"core"},
    {"networks", "losses"},
    {"data"},
    {"envs"},
    {"tabular", "evaluation", "science"},
    {"agents", "language", "generative"},
    {"control"},
    {"reports"},
]
HEIGHT = {package: height for height, packages in enumerate(FLOORS) for package in packages}
OPTIONAL = [
    "gymnasium", "mujoco", "minari", "h5py", "tensorflow_datasets", "tensorflow", "matplotlib", "safetensors", "wandb",
    "tokenizers", "jinja2", "gguf", "rdkit", "selfies",
]
LOCKED_EXTRAS = [
    "mujoco", "adroit", "metaworld", "atari", "minigrid", "datasets", "analysis", "generative", "language", "science",
    "notebooks", "test",
]
LOCAL_RANDOM = {"default_rng", "SeedSequence", "Generator", "BitGenerator", "PCG64", "PCG64DXSM", "Philox", "SFC64"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


LIBRARY = python_files("rl_jax")
SHIPPED = python_files("rl_jax", "experiments", "configs")
EVERYTHING = python_files("rl_jax", "experiments", "configs", "tests")
MODULES = {module_name(path): path for path in SHIPPED}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path, code: ast.Module | None = None) -> set[str]:
    """Absolute names of all that a file imports, anywhere in it; `from a import b` is `a.b` when that is a module."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    found = set()
    code = tree(path) if code is None else code
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            for alias in node.names:
                name = f"{base}.{alias.name}"
                third_party = base.split(".")[0] not in ("rl_jax", "experiments", "configs")
                found.add(name if third_party or name in MODULES else base)
    return found


def floor_violation(importer: str, imported: str) -> bool:
    """Whether `importer`, a module of rl_jax, may not import `imported`."""
    target = imported.split(".")
    if target[0] in ("experiments", "configs", "tests"):
        return True
    if target[0] != "rl_jax" or len(target) == 1:
        return False
    source = importer.split(".")
    if len(source) == 1:
        return True  # rl_jax/__init__.py stands below all floors
    if source[1] == target[1]:
        return False
    return HEIGHT[target[1]] >= HEIGHT[source[1]]


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_a_module_imports_only_from_floors_below(path):
    name = module_name(path)
    assert name == "rl_jax" or name.split(".")[1] in HEIGHT, f"{name} stands on no floor: {FLOORS}"
    assert [other for other in sorted(imports(path)) if floor_violation(name, other)] == []


@pytest.mark.parametrize("path", [path for path in LIBRARY if module_name(path) != "rl_jax.core.main"], ids=module_name)
def test_the_library_but_its_main_reads_no_flag(path):
    flags = {"absl.flags", "ml_collections.config_flags", "argparse"}
    assert {name for name in imports(path) if any(name == f or name.startswith(f + ".") for f in flags)} == set()


def paper_violation(importer: str, imported: str) -> bool:
    """Whether a module of experiments/ or configs/ reaches into another paper: what two need goes one floor down."""
    source, target = importer.split("."), imported.split(".")
    if target[0] not in ("experiments", "configs") or len(target) == 1:
        return False
    if source[0] == "configs":
        return target[0] == "experiments" or target[1] != source[1]
    if target[0] == "configs":
        # What stands above the papers finds their configurations by name.
        owners = {name: paper.name for paper in PAPERS for name in paper.tiny}
        return owners.get(target[1]) != source[1]
    is_paper = (ROOT / "experiments" / target[1]).is_dir()
    return is_paper and target[1] != source[1]


@pytest.mark.parametrize("path", python_files("experiments", "configs"), ids=module_name)
def test_no_paper_imports_another(path):
    name = module_name(path)
    allowed = name.startswith("experiments.benchmark")  # it measures the papers' configurations
    found = [other for other in sorted(imports(path)) if paper_violation(name, other)]
    assert [other for other in found if not (allowed and other.startswith("configs."))] == []


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """One cycle of a directed graph, first node repeated at the end; empty when there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        for successor in sorted(edges.get(node, ())):
            if found := visit(successor):
                return found
        done.add(path.pop())
        return []

    return next((found for node in sorted(edges) if (found := visit(node))), [])


def test_no_circular_import():
    edges = {name: (imports(path) & set(MODULES)) - {name} for name, path in MODULES.items()}
    assert cycle(edges) == []


def test_the_rules_above_find_what_they_forbid():
    path = ROOT / "rl_jax" / "losses" / "imagined.py"
    code = ast.parse("def f():\n    from rl_jax.core import extras, Absent\nimport numpy\nfrom absl import flags")
    assert imports(path, ast.parse("from ..core import extras")) == {"rl_jax.core.extras"}
    assert imports(path, code) == {"rl_jax.core.extras", "rl_jax.core", "numpy", "absl.flags"}
    for importer, imported, forbidden in [
        ("rl_jax.core.loop", "rl_jax.core.program", False),
        ("rl_jax.core.loop", "rl_jax.data.transitions", True),
        ("rl_jax.core.loop", "jax", False),
        ("rl_jax.losses.value", "rl_jax.networks", True),
        ("rl_jax.losses.value", "rl_jax.core.extras", False),
        ("rl_jax.agents.iql", "rl_jax.losses.value", False),
        ("rl_jax.agents.iql", "rl_jax.language.decoder", True),
        ("rl_jax.agents.iql", "configs.offline_rl", True),
        ("rl_jax.data.scores", "rl_jax.tabular.mdp", True),
        ("rl_jax.agents.gorp", "rl_jax.tabular.mdp", False),
        ("rl_jax.control.offline", "rl_jax.reports.claims", True),
        ("rl_jax.reports.claims", "rl_jax.core.experiment", False),
        ("rl_jax", "rl_jax.core", True),
    ]:
        assert floor_violation(importer, imported) == forbidden, (importer, imported)
    for importer, imported, forbidden in [
        ("experiments.dual_rl.claims", "experiments.dual_rl.experiment", False),
        ("experiments.dual_rl.claims", "experiments.offline_rl.published", True),
        ("experiments.dual_rl.claims", "configs.dual_rl", False),
        ("experiments.dual_rl.claims", "configs.offline_rl", True),
        ("experiments.offline_rl.experiment", "configs.offline_to_online", False),
        ("experiments.reproduce", "experiments.launch", False),
        ("experiments.reproduce", "experiments.rlcm.claims", True),
        ("configs.dual_rl", "configs.offline_rl", True),
        ("configs.dual_rl", "experiments.dual_rl.claims", True),
        ("configs.dual_rl", "rl_jax.control.recipes", False),
    ]:
        assert paper_violation(importer, imported) == forbidden, (importer, imported)
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    for bad in [
        "jax.pmap(f)",
        "from jax import pmap",
        "np.load(p, allow_pickle=True)",
        "np.random.seed(0)",
        "import jax.experimental.shard_map",
        "from jax.experimental import shard_map",
        "from jax.experimental.shard_map import shard_map",
    ]:
        assert len(forbidden_ways(ast.parse(bad))) == 1, bad
    good = "np.load(p, allow_pickle=False)\nnp.random.default_rng(0)\njax.shard_map(f)\njax.random.uniform(k)"
    assert forbidden_ways(ast.parse(good)) == []


def forbidden_ways(code: ast.Module) -> list[str]:
    """Lines that go a way the project does not go: pmap, the old shard_map, pickles, numpy's global generator."""
    found = []
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if node.attr == "pmap":
                found.append(f"line {node.lineno}: {name}; use jit over a mesh")
            if re.fullmatch(r"(np|numpy)\.random\.\w+", name) and node.attr not in LOCAL_RANDOM:
                found.append(f"line {node.lineno}: {name} is the global generator; use np.random.default_rng")
            if name.startswith("jax.experimental.shard_map"):
                found.append(f"line {node.lineno}: {name}; use jax.shard_map")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            found += [f"line {node.lineno}: {name}" for name in names if name.startswith("jax.experimental.shard_map")]
            found += [f"line {node.lineno}: {name}" for name in names if name == "jax.pmap"]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(f"line {node.value.lineno}: allow_pickle must be False")
    return found


@pytest.mark.parametrize("path", EVERYTHING, ids=module_name)
def test_a_module_says_what_it_is_and_goes_no_forbidden_way(path):
    assert path.name != "utils.py", "a helper that two files need goes one floor down, under its own name"
    assert ast.get_docstring(tree(path)), "no module docstring"
    assert forbidden_ways(tree(path)) == []


def test_files_stay_short():
    def lines(path):
        return len(path.read_text(encoding="utf-8").splitlines())

    def defines_its_agent(path):
        defined = {node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)}
        return {path.stem, "default_config"} <= defined

    agents = python_files("rl_jax/agents")
    trains = sorted((ROOT / "experiments").glob("*/train.py"))
    too_long = [(path, lines(path)) for path in agents if lines(path) > 300]
    too_long += [(path, lines(path)) for path in trains if lines(path) > 60]
    assert too_long == [], "an agent has at most 300 lines, a train.py its docstring and three more"
    too_short = [(path, lines(path)) for path in agents if defines_its_agent(path) and lines(path) < 50]
    assert too_short == [], "an agent file holds its losses, update, act, factory and default config itself"


def test_what_stands_above_the_papers_stays_small():
    above = sorted((ROOT / "experiments").glob("*.py"))
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in above) < 700, above


def test_no_word_is_said_to_a_formatter_that_does_not_run():
    pragma = "# " + "fmt:"
    assert [path for path in EVERYTHING if pragma in path.read_text(encoding="utf-8")] == []


def test_every_binary_is_started_by_a_test():
    """The papers' trainings by tests/promises; every other one is named by a test."""
    started = {f"experiments.{paper.name}.{binary}" for paper in PAPERS for binary in paper.binaries}
    # By the benchmark, in a Python that has these libraries.
    started |= {f"experiments.benchmark.peers.{library}_process" for library in ("diffusers", "transformers")}
    tests = "\n".join(path.read_text(encoding="utf-8") for path in python_files("tests") if path != Path(__file__))
    binaries = [
        name.removesuffix(".__main__") for name, path in MODULES.items()
        if path.name == "__main__.py" or 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]
    assert len(binaries) >= len(started)
    assert [name for name in binaries if name not in started and name not in tests] == []


def test_every_folder_with_modules_is_a_package():
    assert {path.parent for path in SHIPPED if not (path.parent / "__init__.py").exists()} == set()


def in_fresh_interpreter(code: str, *arguments: str) -> None:
    """Runs `code` in an interpreter that has imported nothing, on a platform that cannot be started."""
    environment = {**os.environ, "JAX_PLATFORMS": "none_at_import_time", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_core_networks_and_losses_import_on_a_bare_machine():
    floors = [module_name(path) for path in python_files("rl_jax/core", "rl_jax/networks", "rl_jax/losses")]
    code = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in optional:
            raise ModuleNotFoundError(f"No module named {name!r} on a bare machine", name=name)

optional, modules = (argument.split(",") for argument in sys.argv[1:])
sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""
    in_fresh_interpreter(code, ",".join(OPTIONAL), ",".join(floors))


def test_importing_does_no_work():
    code = """
import importlib, sys
from absl import flags

before = set(flags.FLAGS)
modules = sys.argv[1].split(",")
for module in modules:
    importlib.import_module(module)
defined = {name for name in set(flags.FLAGS) - before if flags.FLAGS.find_module_defining_flag(name) in modules}
assert not defined, defined
try:
    import jax
    jax.devices()
except RuntimeError:
    sys.exit(0)
sys.exit("the platform of this check can be started, so it proves nothing")
"""
    modules = [module_name(path) for path in python_files("rl_jax", "configs") if path.name != "__main__.py"]
    in_fresh_interpreter(code, ",".join(modules))


@pytest.mark.skipif("RL_JAX_TEST_PLATFORM" in os.environ, reason="the platform was chosen by hand")
def test_the_tests_have_eight_cpu_devices():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 8


def test_the_lock_pins_what_setup_cfg_asks_for():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    asked = [setup["options"]["install_requires"], *(extras[name] for name in LOCKED_EXTRAS)]
    pins = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    for requirement in map(Requirement, filter(None, "\n".join(asked).splitlines())):
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions and all(version in requirement.specifier for version in versions), f"{requirement}: {versions}"


READMES = [ROOT / "README.md", *sorted((ROOT / "experiments").rglob("README.md"))]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_readme_names_exists(path):
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, flags=re.DOTALL | re.MULTILINE))
    # "**1. The agent**, `rl_jax/agents/crr.py`" is how the README begins a file that it shows how to write.
    made = re.findall(r"^\*\*\d\. [^*]+\*\*, `(?:[\w/]+/)?(\w+)(?:/\w+)?\.py`", text, flags=re.MULTILINE)
    code = re.sub(r"[\w/.]*\b(?:{})\b[\w/.]*".format("|".join({*made} - {"experiments"}) or r"(?!)"), "", code)
    missing = []
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    missing += [f"make {name}" for name in re.findall(r"\bmake ([a-z][a-z0-9-]*)", code) if name not in targets]
    for name in re.findall(r"-m ((?:experiments|rl_jax)[\w.]*\w)(?![\w.<])", code):
        if name not in MODULES:
            missing.append(f"python -m {name}")
    for name, preset in re.findall(r"--config[= ](configs/\w+\.py)(?::([\w/-]+))?", code):
        if not (ROOT / name).exists():
            missing.append(name)
        else:
            spec = importlib.util.spec_from_file_location("config_of_readme", ROOT / name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            assert module.get_config(preset) if preset else module.get_config()
    for name in re.findall(r"(?<![\w/.<])(?:rl_jax|experiments|configs|docs|tests|\.ci)/[\w/.<>*{}-]+", code):
        if not re.search(r"[<>*{}]", name) and not (ROOT / name.rstrip("./")).exists():
            missing.append(name)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link and not link.startswith("mailto:") and not (path.parent / link).exists():
            missing.append(link)
    assert not missing, f"{path.name} names what does not exist: {missing}"


def test_index_of_papers_is_current():
    from experiments.index import index

    assert (ROOT / "experiments" / "README.md").read_text() == index(), "run python -m experiments.index"
