"""The walls between the parts: who includes and imports whom, what the libraries need, and how files are named.

docs/architecture.md gives the reasons. Needs no torch; the check of the built libraries needs `readelf` and a build.
"""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "torch_openreg"

# Folder of csrc -> the folders that it may include besides itself. The most specific folder counts.
MAY_INCLUDE = {
    "hal": [],
    "driver/sim": ["hal"],
    "driver/null": ["hal"],
    "layers": ["hal"],
    "runtime": ["hal", "layers"],
    "aten": ["runtime", "hal"],
    "distributed": ["runtime", "hal"],
    "profiler": ["runtime", "hal"],
    "python": ["aten", "distributed", "profiler", "runtime", "hal"],
}

# Single headers that a folder may include beyond MAY_INCLUDE, with the reason.
MAY_INCLUDE_FILE = {
    "aten": {"driver/sim/sim_kernel.h": "the format of the simulator's kernel image, which kernel_load takes"},
    "runtime": {"driver/sim/sim_kernel.h": "the format of the simulator's kernel image, which kernel_load takes"},
}

# Folder of csrc -> <...> includes that it may not have.
FORBIDDEN_SYSTEM_INCLUDES = {
    "hal": r"(?!stdint\.h$|stddef\.h$).*",
    "driver": r"(torch|ATen|c10|pybind11)/.*|Python\.h",
    "layers": r"(torch|ATen|c10|pybind11)/.*|Python\.h",
    "runtime": r"pybind11/.*|Python\.h|torch/csrc/.*|torch/(extension|torch|all)\.h",
    "aten": r"pybind11/.*|Python\.h|torch/(extension|torch|all)\.h",
    "aten/kernels": r"ATen/.*",
    "": r"torch/(extension|torch|all)\.h|ATen/ATen\.h",
}

# Module of the package -> what it may import besides the standard library and itself.
MAY_IMPORT = {
    "torch_openreg": {"torch", "torch_openreg.driver", "torch_openreg.version", "torch_openreg.registration", "torch_openreg.api"},
    "torch_openreg.api": set(),
    "torch_openreg.driver": set(),
    "torch_openreg.version": {"torch", "torch_openreg._build_info"},
    "torch_openreg.registration": {
        "torch",
        "torch_openreg._C",
        "torch_openreg._build_info",
        "torch_openreg.driver",
        "torch_openreg.openreg",
        "torch_openreg.shutdown",
        "torch_openreg.version",
    },
    "torch_openreg.shutdown": set(),
    "torch_openreg.openreg": {"torch", "torch_openreg._C", "torch_openreg.api", "torch_openreg.driver", "torch_openreg.openreg"},
}

# Required by these modules when the package is imported, so they may not import torch at their top.
TORCH_FREE_AT_IMPORT = ["torch_openreg", "torch_openreg.driver", "torch_openreg.version", "torch_openreg.registration"]

BANNED_NAMES = {"utils", "misc", "common", "manager", "minimal", "extra", "helpers", "util"}
MAX_LINES = 600
SOURCES = {".h", ".hpp", ".c", ".cpp", ".py", ".pyi", ".md", ".toml", ".cfg", ".map", ".txt", ".sh"}
NOT_OURS = {"build", "dist", "__pycache__", ".git", "include", "lib"}


def files(*suffixes, top=ROOT):
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts)
        if path.is_file() and path.suffix in suffixes and not hidden and not NOT_OURS.intersection(parts[:-1]):
            if not any(part.endswith(".egg-info") for part in parts):
                yield path


def folder_rule(table, path):
    """The entry of the most specific folder of csrc that a file lies in."""
    folder = path.relative_to(CSRC).parent
    for candidate in [folder, *folder.parents]:
        key = "" if str(candidate) == "." else candidate.as_posix()
        if key in table:
            return key
    return None


def test_quoted_includes_follow_the_layers():
    violations = []
    for path in files(".h", ".hpp", ".c", ".cpp", top=CSRC):
        layer = folder_rule(MAY_INCLUDE, path)
        allowed = [layer, *MAY_INCLUDE.get(layer, [])]
        for target in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
            resolved = next((base / target for base in (CSRC, path.parent) if (base / target).is_file()), None)
            inside = resolved and resolved.resolve().relative_to(CSRC).as_posix()
            by_name = inside in MAY_INCLUDE_FILE.get(layer, {})
            if layer is None or inside is None or not (by_name or any(inside.startswith(f"{to}/") for to in allowed)):
                violations.append(f"{path.relative_to(ROOT)} includes {target}")
    assert not violations, "\n".join(violations)


def test_headers_of_the_single_exceptions_exist():
    for exceptions in MAY_INCLUDE_FILE.values():
        for header, reason in exceptions.items():
            assert (CSRC / header).is_file() and reason


def test_system_includes_follow_the_layers():
    violations = []
    for path in files(".h", ".hpp", ".c", ".cpp", top=CSRC):
        includes = re.findall(r"^\s*#\s*include\s+<([^>]+)>", path.read_text(), re.MULTILINE)
        for folder, pattern in FORBIDDEN_SYSTEM_INCLUDES.items():
            if path.relative_to(CSRC).as_posix().startswith(f"{folder}/" if folder else ""):
                violations += [f"{path.relative_to(ROOT)}: <{name}>" for name in includes if re.fullmatch(pattern, name)]
    assert not violations, "\n".join(violations)


def imports(tree, module, is_package):
    """Full names of what a syntax tree imports, relative imports resolved."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                is_module = (ROOT / (deeper.replace(".", "/") + ".py")).exists() or (ROOT / deeper.replace(".", "/")).is_dir()
                yield deeper if is_module or alias.name in ("_C", "_build_info") else base


def modules():
    for path in files(".py", top=PACKAGE):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), path, is_package


def test_python_imports_follow_the_table():
    violations = []
    for module, path, is_package in modules():
        rule = module if module in MAY_IMPORT else "torch_openreg.openreg" if module.startswith("torch_openreg.openreg.") else None
        if rule is None:
            continue
        for name in imports(ast.parse(path.read_text()), module, is_package):
            ours = name.split(".")[0] in ("torch", "torch_openreg")
            if ours and not any(name == allowed or name.startswith(allowed + ".") for allowed in MAY_IMPORT[rule] - {"torch_openreg"}):
                violations.append(f"{module} imports {name}")
            elif not ours and name.split(".")[0] not in sys.stdlib_module_names:
                violations.append(f"{module} imports {name}, which Python does not bring along")
    assert not violations, "\n".join(violations)


def test_the_package_imports_torch_only_inside_functions():
    for module, path, is_package in modules():
        if module in TORCH_FREE_AT_IMPORT:
            top = ast.Module([node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.FunctionDef)], [])
            assert not [name for name in imports(top, module, is_package) if name.split(".")[0] == "torch"], module


def test_nothing_in_the_package_imports_the_tests():
    assert not [m for m, path, is_package in modules() for name in imports(ast.parse(path.read_text()), m, is_package) if name == "tests"]


def needed_libraries(path):
    output = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output)


@pytest.fixture
def built_package():
    spec = importlib.util.find_spec("torch_openreg")
    assert spec is not None, "torch_openreg is not importable: build it first."
    assert shutil.which("readelf"), "readelf (package binutils) is needed to look into the libraries."
    return Path(spec.origin).parent


def test_driver_libraries_need_neither_torch_nor_python(built_package):
    libraries = sorted((built_package / "lib").glob("libopenreg_*.so"))
    assert "libopenreg_sim.so" in [library.name for library in libraries]
    for library in libraries:
        assert not [need for need in needed_libraries(library) if re.match(r"lib(torch|c10|python|shm|gomp|openreg)", need)], library


def test_the_torch_side_links_no_driver(built_package):
    libraries = [*(built_package / "lib").glob("libtorch_openreg*.so"), *built_package.glob("_C*.so")]
    assert len(libraries) == 2
    for library in libraries:
        assert not [need for need in needed_libraries(library) if "openreg_" in need.replace("torch_openreg", "")], library


def test_no_file_or_folder_has_a_name_that_says_nothing():
    for path in files(*SOURCES):
        words = {word for part in path.relative_to(ROOT).parts for word in re.split(r"[._\-]", part.lower())}
        assert not words & BANNED_NAMES, path.relative_to(ROOT)


def test_no_source_file_is_longer_than_600_lines():
    long_files = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files(*(SOURCES - {".md", ".txt"}))}
    assert not {name: lines for name, lines in long_files.items() if lines > MAX_LINES}


def test_every_source_file_opens_with_its_purpose():
    silent = []
    for path in files(".h", ".cpp", ".c", ".py"):
        first = path.read_text().lstrip()
        if first and not re.match(r'//|/\*|#(?!include|pragma|ifndef)|r?"""', first):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


def test_every_note_that_is_referred_to_is_written_once():
    titles, references = {}, {}
    for path in files(".h", ".c", ".cpp", ".py", ".md"):
        if path == Path(__file__):
            continue
        for line in path.read_text().splitlines():
            for title in re.findall(r"Note \[([^\]]+)\]", line):
                is_title = re.fullmatch(r"\s*(//|#|\*|/\*)*\s*Note \[[^\]]+\]\s*(\*/)?", line) is not None
                (titles if is_title else references).setdefault(title, []).append(str(path.relative_to(ROOT)))
    assert not {title: places for title, places in titles.items() if len(places) > 1}
    assert not {title: places for title, places in references.items() if title not in titles}


def test_no_source_has_an_open_end():
    marks = re.compile("|".join(rf"\b{a}{b}\b" for a, b in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"))))
    found = [str(path.relative_to(ROOT)) for path in files(".h", ".c", ".cpp", ".py", ".md") if marks.search(path.read_text())]
    assert not found


def test_every_skip_and_expected_failure_has_a_reason():
    for path in files(".py", top=ROOT / "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("skip", "skipif", "xfail"):
                given = bool(node.args[-1:]) if node.func.attr == "skip" else False
                assert given or any(keyword.arg == "reason" for keyword in node.keywords), f"{path}:{node.lineno}"
