"""The arrows point down: who may import whom, read from the sources."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import whit

SOURCES = Path(whit.__file__).parent

# From bottom to top: a module may import what stands in a row below its own, and the modules of its own room, though
# never in a circle. A room covers a package's modules, unless one of them has a place of its own; ``.__init__`` is
# what a package offers.
LAYERS = (
    ("_core", "errors", "moments", "progress"),
    ("data", "distill", "finite", "formats", "lookup", "mixed", "penalties", "ranks", "workers", "cli.bars"),
    ("allocate", "factors", "ledger", "metrics", "quantizers", "ranges", "scores", "jax.pytree"),
    ("graph", "onnx", "scalings", "units", "jax.replay"),
    ("steps",),
    ("network", "plan", "schedules"),
    ("measure", "target", "toml"),
    ("store",),
    ("runtime",),
    ("decide", "peak", "torch"),
    ("frontends", "result", "run", "synthetic", "weights_only"),
    ("checkpoint", "delivering", "jax", "cli.output", "cli.table"),
    ("compress", "saving"),
    ("demo", "export", "torch.own_loop"),
    ("search", "torch.__init__"),
    ("cli",),
    ("__main__", "__init__"),
)

# Only these import a framework when they are imported; everything else does so inside functions, or not at all.
FRAMEWORKS = {
    "torch": ("torch", "demo"),
    "onnx": ("onnx", "torch"),
    "jax": ("jax",),
}

PATHS = {
    ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCES.rglob("*.py"))
}


def covers(entry, module):
    return module == entry or module.startswith(f"{entry}.")


def entry_of(module):
    """The longest entry that covers a module, and its row."""
    rows = {entry: row for row, entries in enumerate(LAYERS) for entry in entries}
    if f"{module}.__init__" in rows:
        return f"{module}.__init__", rows[f"{module}.__init__"]
    found = [(entry, row) for entry, row in rows.items() if covers(entry, module)]
    assert found, f"{module} has no place: put it into the table of layers, as far down as it can be"
    return max(found, key=lambda one: len(one[0]))


def imports(module):
    """Names that a module imports anywhere, each with whether that happens on import."""
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        yield from ((name, id(node) not in inside) for name in names)


def imported_modules(module):
    """The modules of whit that a module imports."""
    for name, _ in imports(module):
        if name == "whit" or name.startswith("whit."):
            rest = name.removeprefix("whit").removeprefix(".")
            known = [path for path in (*PATHS, "_core") if covers(path, rest)]
            yield max(known, key=len, default="__init__")


@pytest.mark.parametrize("module", PATHS)
def test_arrows_point_down(module):
    entry, row = entry_of(module)
    for other in imported_modules(module):
        other_entry, other_row = entry_of(other)
        assert other_entry == entry or other_row < row, f"{module} imports {other}, which does not stand below it"


def test_no_modules_import_each_other_in_a_circle():
    below = {module: {other for other in imported_modules(module) if other in PATHS} for module in PATHS}
    for package in [module for module, path in PATHS.items() if path.name == "__init__.py"]:
        for module, others in below.items():
            if covers(package, module):  # a package offers what its modules have, and is there before them
                others.discard(package)
    TopologicalSorter(below).prepare()


@pytest.mark.parametrize("module", PATHS)
def test_a_framework_is_imported_where_it_belongs_and_nowhere_else(module):
    for name, on_import in imports(module):
        places = FRAMEWORKS.get(name.partition(".")[0])
        if places is not None and on_import:
            assert any(covers(place, module) for place in places), f"{module} imports {name} when it is imported"


def test_the_table_lists_nothing_that_is_gone():
    entries = [entry for row in LAYERS for entry in row]
    assert len(set(entries)) == len(entries)
    known = (*PATHS, *(f"{module}.__init__" for module in PATHS), "_core")
    assert not [entry for entry in entries if not any(covers(entry, module) for module in known)]


def modules_after(statement):
    """Names of the packages that are there after a statement in a fresh interpreter, but for the standard library's."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in found.stdout.split() if name not in sys.stdlib_module_names}


def test_no_framework_is_imported_for_the_caller():
    assert not {"torch", "jax", "onnx"} & modules_after("import whit")


def test_the_runtime_needs_numpy_the_core_and_onnx_runtime_only():
    before = modules_after("pass")
    assert modules_after("import whit.runtime") - before == {"numpy", "onnxruntime", "whit"}
