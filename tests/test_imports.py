"""Packages in layers, imports that point down only, and light packages that need no TensorFlow."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import divtf

PACKAGE = Path(divtf.__file__).parent


def name_of(path):
    """The module's name below the package: "storage.files", "main"; "storage" is the package's __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


SOURCES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
TREES = {name_of(path): ast.parse(path.read_text()) for path in SOURCES}
COMMANDS = {
    "main",
    "table2",
    "figure3",
    "figure5",
    "transfer_matrix",
    "evaluate",
    "compare",
    "publish",
    "report",
}
# From the top: a module may import those of its own package, of packages of its layer, and of lower layers.
LAYERS = [
    COMMANDS,
    {"commands"},
    {"pipeline"},
    {"training", "evaluation"},
    {"reporting", "attacks", "ensembles"},
    {"networks", "data", "runtime", "storage"},
    {"errors"},
]
# Packages, and modules of others, that load neither TensorFlow nor Ray.
LIGHT = [
    *("errors", "storage", "reporting", "commands", "runtime.processor", "data.paper", "data.datasets"),
    *("networks.names", "ensembles.objectives.names", "pipeline.objective_fields", "pipeline.static_fields"),
    *(f"pipeline.{name}" for name in ("config", "fields", "modes", "finished", "shared_paths")),
    *("pipeline.results", "pipeline.indexed"),
    *("pipeline.protocols", "pipeline.surrogates", "pipeline.recipes"),
    *COMMANDS,
]


def package_of(module):
    return module.split(".")[0]


def imported(module):
    """Modules of divtf that a module imports, wherever in it, and outside packages."""
    inside, outside = set(), set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            if package_of(node.module) != "divtf":
                outside.add(package_of(node.module))
                continue
            within = node.module.removeprefix("divtf").lstrip(".")
            for alias in node.names:
                full = f"{within}.{alias.name}".lstrip(".")
                inside.add(full if full in TREES else within)
    assert "divtf" not in outside
    return inside - {module}, outside


IMPORTS = {module: imported(module)[0] for module in TREES}
OUTSIDE = {module: imported(module)[1] for module in TREES}
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def reachable(start, arrows):
    found, waiting = set(), [start]
    while waiting:
        for other in arrows[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def arrows_between_packages():
    packages = {package_of(module): set() for module in TREES}
    for module, others in IMPORTS.items():
        packages[package_of(module)] |= {package_of(other) for other in others} - {package_of(module)}
    return packages


def test_every_package_has_a_layer():
    assert sorted(LAYER) == sorted({package_of(module) for module in TREES})


def test_the_top_level_is_small():
    assert len(set(LAYER) - COMMANDS) <= 12


def test_every_package_says_what_it_holds():
    packages = [path.parent for path in PACKAGE.rglob("__init__.py")]
    assert all(ast.get_docstring(ast.parse((package / "__init__.py").read_text())) for package in packages)


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_point_down(module):
    above = {other for other in IMPORTS[module] if LAYER[package_of(other)] < LAYER[package_of(module)]}
    assert not above, f"{module} imports {above} from above"


@pytest.mark.parametrize("module", sorted(TREES))
def test_no_module_leads_back_to_itself(module):
    assert module not in reachable(module, IMPORTS)


@pytest.mark.parametrize("name", sorted(arrows_between_packages()))
def test_no_package_leads_back_to_itself(name):
    assert name not in reachable(name, arrows_between_packages())


@pytest.mark.parametrize("module", sorted(TREES))
def test_private_names_stay_in_their_module(module):
    """Neither imported nor reached for: what another module needs has a public name."""
    modules = {name.split(".")[-1] for name in IMPORTS[module]}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and package_of(node.module) == "divtf":
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert not node.attr.startswith("_"), f"{node.value.id}.{node.attr}"


def is_private(name):
    # `_typeshed` is what type checkers are to be told of files; nothing of it is there at run time.
    return name.startswith("_") and not name.startswith("__") and name != "_typeshed"


def defined(tree):
    """Names that a module defines or assigns anywhere in it, attributes of its objects included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


DEFINED = {module: defined(tree) for module, tree in TREES.items()}


@pytest.mark.parametrize("module", sorted(set(TREES) - {"runtime.private_names"}))
def test_private_names_of_other_libraries_stay_in_one_module(module):
    """Attributes of `self` may come from a class of another module of divtf, all others from the module."""
    everywhere = set().union(*DEFINED.values())
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom | ast.Import):
            path = getattr(node, "module", "") or ""
            names = [*path.split("."), *(part for alias in node.names for part in alias.name.split("."))]
            assert not [name for name in names if is_private(name)], f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            assert node.attr in (everywhere if on_self else DEFINED[module]), (
                f"line {node.lineno}: {ast.unparse(node)}"
            )


def test_modules_of_commands_only_start_them():
    for command in COMMANDS:
        assert IMPORTS[command] == {f"commands.{command}"} and not OUTSIDE[command]


@pytest.mark.parametrize("name", ["attacks", "networks", "data"])
def test_what_takes_any_callable_does_not_know_ensembles(name):
    assert "ensembles" not in reachable(name, arrows_between_packages())


@pytest.mark.parametrize("module", ["evaluation.transfer", "ensembles.alignment", "ensembles.objectives.gal"])
def test_modules_that_take_any_callable_do_not_know_the_ensemble(module):
    assert "ensembles.ensemble" not in reachable(module, IMPORTS)


def test_reports_read_only_records():
    found = reachable("reporting", arrows_between_packages())
    assert found == {"data", "runtime", "storage", "errors"}
    modules = {
        other for module in TREES if package_of(module) == "reporting" for other in reachable(module, IMPORTS)
    }
    assert {module for module in modules if package_of(module) == "data"} == {"data.paper"}


def test_training_and_what_is_below_know_no_run_config():
    below = [module for module in TREES if LAYER[package_of(module)] > LAYER["pipeline"]]
    assert not [module for module in below if "pipeline.config" in reachable(module, IMPORTS)]


@pytest.mark.parametrize(
    ("library", "packages"),
    [
        *(("absl", {"commands"}), ("cleverhans", {"attacks"}), ("art", {"attacks"}), ("ray", {"commands"})),
        *(("mlflow", {"training"}), ("wandb", {"training"})),
    ],
)
def test_a_library_is_known_to_one_package(library, packages):
    assert {package_of(module) for module, libraries in OUTSIDE.items() if library in libraries} == packages


def test_light_modules_bring_no_tensorflow():
    """Nor Ray, an extra. One process for all: the last line names the module that brought it."""
    heavy = {"tensorflow", "keras", "cleverhans", "tensorflow_datasets", "ray", "mlflow", "wandb"}
    light = [module for module in TREES if module in LIGHT or package_of(module) in LIGHT]
    script = (
        "import importlib, sys\n"
        f"for name in {sorted(light)}:\n"
        "    importlib.import_module('divtf.' + name)\n"
        f"    heavy = {heavy} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
        "import divtf\n"
        "assert divtf.RunConfig and divtf.DATASETS and dir(divtf) and 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_waits_for_nothing_slow(command):
    """What takes long to import is imported when the flags are known to be right."""
    slow = [
        "tensorflow",
        "keras",
        "matplotlib",
        "pandas",
        "scipy",
        "numpy",
        "psutil",
        "filelock",
        "tqdm",
        "ray",
    ]
    script = f"import sys, divtf.{command}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", divtf.__all__)
def test_public_names_resolve(name):
    value = getattr(divtf, name)
    home = divtf._HOMES.get(name)
    if home:
        assert getattr(importlib.import_module(f"divtf.{home}"), name) is value


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        divtf.nonsense  # noqa: B018
    assert set(divtf.__all__) <= set(dir(divtf))
    assert len(set(divtf.__all__)) == len(divtf.__all__)


def test_no_module_takes_the_place_of_a_public_name():
    assert not set(divtf.__all__) & {package_of(module) for module in TREES}


def test_tests_mirror_the_packages():
    tests = Path(__file__).parent
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert packages == {path.name for path in tests.iterdir() if list(path.glob("test_*.py"))}
