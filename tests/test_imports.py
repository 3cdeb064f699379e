"""Imports point down only; what makes reports and parses flags needs no TensorFlow."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import divtf

PACKAGE = Path(divtf.__file__).parent
SOURCES = {path.stem: path.read_text() for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}
COMMANDS = {name for name, text in SOURCES.items() if '__name__ == "__main__"' in text}
# From the top: a module may import those of lower layers, and of its own as long as none leads back.
LAYERS = [
    COMMANDS,
    {"cluster"},
    {"cli", "experiment"},
    {"shared_models"},
    {"training", "transfer", "export", "report", "subspace", "analysis", "finished"},
    {"callbacks", "checkpoints", "preflight"},
    {"gaas_picture", "matrix_picture", "sparsity_picture", "table_data", "table_picture"},
    {"plots", "tables", "captions", "paper", "ensemble", "members"},
    {"objectives", "attacks", "data", "models"},
    {"alignment", "layers", "distribution", "workers", "threat"},
    {"normalization", "optimizer"},
    {"shared_homes"},
    {"config", "run_dir", "records", "datasets"},
    {"files"},
    {"errors", "startup", "_version"},
]
WITHOUT_TENSORFLOW = [
    *("config", "run_dir", "files", "records", "errors", "cli", "datasets", "main", "table2", "cluster"),
    *("report", "tables", "plots", "captions", "table_picture", "table_data", "paper"),
    *("finished", "figure3", "figure5", "gaas_picture", "sparsity_picture", "publish"),
    *("matrix_picture", "transfer_matrix", "shared_homes", "startup"),
]


def imported(name):
    """Modules of divtf that a module imports, wherever in it, and outside packages."""
    inside, outside = set(), set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module == "divtf":
            inside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("divtf."):
            inside.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            outside.add(node.module)
        elif isinstance(node, ast.Import):
            outside |= {alias.name for alias in node.names}
    assert not any(module.split(".")[0] == "divtf" for module in outside)
    return inside, {module.split(".")[0] for module in outside}


IMPORTS = {name: imported(name)[0] for name in SOURCES}
OUTSIDE = {name: imported(name)[1] for name in SOURCES}


def reachable(name):
    found, waiting = set(), [name]
    while waiting:
        for other in IMPORTS[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def test_every_module_has_a_layer():
    assert sorted(module for layer in LAYERS for module in layer) == sorted(SOURCES)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_point_down(name):
    layer = next(number for number, layer in enumerate(LAYERS) if name in layer)
    allowed = set().union(*LAYERS[layer:])
    assert IMPORTS[name] <= allowed, f"{name} imports {IMPORTS[name] - allowed} from above"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_module_leads_back_to_itself(name):
    assert name not in reachable(name)


@pytest.mark.parametrize("name", ["attacks", "transfer", "alignment", "objectives", "data", "models"])
def test_what_takes_any_callable_does_not_know_ensembles(name):
    assert "ensemble" not in reachable(name)


def test_report_reads_only_records():
    assert reachable("report").isdisjoint({"config", "run_dir", "ensemble", "training", "experiment"})


def test_only_commands_know_flags():
    assert {name for name, packages in OUTSIDE.items() if "absl" in packages} <= {"cli", *COMMANDS}
    assert not any("cli" in IMPORTS[name] for name in set(SOURCES) - COMMANDS)


def test_only_attacks_knows_cleverhans():
    assert {name for name, packages in OUTSIDE.items() if "cleverhans" in packages} == {"attacks"}


def test_only_cluster_knows_ray():
    assert {name for name, packages in OUTSIDE.items() if "ray" in packages} == {"cluster"}


def test_light_modules_bring_no_tensorflow():
    """Nor Ray, an extra. One process for all: the last line names the module that brought it."""
    script = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TENSORFLOW}:\n"
        "    importlib.import_module('divtf.' + name)\n"
        "    heavy = {'tensorflow', 'keras', 'cleverhans', 'tensorflow_datasets', 'ray'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
        "import divtf\n"
        "assert divtf.RunConfig and divtf.DATASETS and dir(divtf) and 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    assert not set(divtf.__all__) & set(SOURCES)
