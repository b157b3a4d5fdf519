"""The laws of the house that no other tool knows: sizes, names, weights, the README's tree, what may be imported.

Enters: the working tree. Leaves: one line per finding, and exit status 1 if there is any. Each law is one function
from the project's folder to findings, so that `tests/test_house.py` can hold each against a bad example.
Does not know: style (ruff), types (mypy), layers (import-linter).
"""

import ast
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
MAX_LINES = 400
MAX_STATEMENTS = 60
MAX_PARAMETERS = 8
MAX_FLAGS = 19  # a command: eighteen flags and what it is about
MAX_TRACKED = 48 * MIB
MAX_SHARD = 16 * MIB
MAX_WEIGHTS = 28 * MIB
MAX_ATLAS = 6 * MIB
MAX_VIRST = 8 * MIB
HOMELESS = {"utils", "util", "common", "helpers", "helper", "misc"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib"}
BANNED_CALLS = {"eval", "exec"}
BANNED_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("torch", "manual_seed")}
ALLOWED = {("src/dynin/pickled.py", "torch.load")}
"""The explicit conversion of pickled weights, which reads tensors only."""
CODE_SUFFIXES = {".py", ".toml", ".cfg", ".ini", ".sh", ""}
CODE_NAMES = {"Makefile", "run"}

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)


def tracked_files(root: Path) -> list[Path]:
    """The files that git keeps or would keep; outside a repository, everything that is not hidden or built."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0 and result.stdout:
        names = sorted(set(filter(None, result.stdout.split("\0"))))
        return [path for name in names if (path := root / name).is_file()]
    skipped = {"out", "runs", "build", "dist", "__pycache__"}
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") or part in skipped for part in path.relative_to(root).parts)
    ]


def python_files(root: Path) -> list[Path]:
    """The tracked Python files."""
    return [path for path in tracked_files(root) if path.suffix == ".py"]


def syntax_trees(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The tracked Python files, read; what cannot be read has no nodes, and `readable` tells so."""
    for path in python_files(root):
        try:
            yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError:
            continue


def readable(root: Path) -> Iterator[str]:
    """Every Python file can be read by the Python that runs this check."""
    for path in python_files(root):
        try:
            ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            yield f"{path.relative_to(root)}:{error.lineno}: {error.msg}; this is Python {platform.python_version()}"


def file_lengths(root: Path) -> Iterator[str]:
    """No Python file is longer than 400 lines."""
    for path in python_files(root):
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > MAX_LINES:
            yield f"{path.relative_to(root)}: {count} lines, at most {MAX_LINES}: split it by what it knows"


def function_sizes(root: Path) -> Iterator[str]:
    """No function has more than 60 statements or more than 8 parameters (a `forward` and a command may)."""
    for place, tree in syntax_trees(root):
        for node in ast.walk(tree):
            if not isinstance(node, type_of_function):
                continue
            statements = sum(isinstance(child, ast.stmt) for part in node.body for child in ast.walk(part))
            if statements > MAX_STATEMENTS:
                yield f"{place}:{node.lineno}: {node.name} has {statements} statements, at most {MAX_STATEMENTS}"
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
            limit = MAX_FLAGS if "cli" in place.parts else MAX_PARAMETERS
            if count > limit and node.name != "forward":
                yield f"{place}:{node.lineno}: {node.name} has {count} parameters, at most {limit}: name what they are"


def homeless_names(root: Path) -> Iterator[str]:
    """No file or folder is called utils, common, helpers or misc."""
    for path in tracked_files(root):
        place = path.relative_to(root)
        if HOMELESS & {*place.parts[:-1], path.stem}:
            yield f"{place}: a homeless name; say what it is about"


def weights_and_sizes(root: Path) -> Iterator[str]:
    """What is tracked stays small enough to clone: 48 MiB in all, weights 28, a shard 16, the atlas 6, VIRST 8."""
    sizes = {path.relative_to(root): path.stat().st_size for path in tracked_files(root)}
    weights = {path: size for path, size in sizes.items() if path.suffix == ".safetensors" and path.parts[0] == "src"}
    atlas = sum(size for path, size in sizes.items() if "atlas" in path.name and path.suffix != ".py")
    virst = sum(size for path, size in sizes.items() if path.parts[:4] == ("src", "dynin", "assets", "virst"))
    totals = {
        "all tracked files": (sum(sizes.values()), MAX_TRACKED),
        "the embedded weights": (sum(weights.values()), MAX_WEIGHTS),
        "the atlas": (atlas, MAX_ATLAS),
        "the small VIRST": (virst, MAX_VIRST),
        **{str(path): (size, MAX_SHARD) for path, size in weights.items()},
    }
    for name, (size, limit) in totals.items():
        if size > limit:
            yield f"{name}: {size / MIB:.1f} MiB, at most {limit // MIB} MiB"


def ascii_code(root: Path) -> Iterator[str]:
    """Code is ASCII; prose may not need to be."""
    for path in tracked_files(root):
        if path.suffix not in CODE_SUFFIXES or (path.suffix == "" and path.name not in CODE_NAMES):
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if not line.isascii():
                yield f"{path.relative_to(root)}:{number}: a character outside ASCII; write its escape or its name"


def banned_code(root: Path) -> Iterator[str]:
    """Nothing that runs code from a file, seeds globally, or hides annotations from the run-time check."""
    for place, tree in syntax_trees(root):
        if place.parts[0] == "tests":
            continue
        for node in ast.walk(tree):
            for word in banned_words(node):
                if (place.as_posix(), word) in ALLOWED:
                    continue
                yield f"{place}:{getattr(node, 'lineno', 0)}: {word} is not used here (see CONTRIBUTING.md, Safety)"


def banned_words(node: ast.AST) -> Iterator[str]:
    """The names of banned things that one syntax node uses."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names if alias.name.split(".")[0] in BANNED_MODULES)
        case ast.ImportFrom(module="__future__", names=names):
            yield from (f"from __future__ import {alias.name}" for alias in names if alias.name == "annotations")
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in BANNED_MODULES:
            yield module
        case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
            yield f"{name}()"
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in BANNED_ATTRIBUTES:
            yield f"{owner}.{name}"
        case ast.keyword(arg="trust_remote_code"):
            yield "trust_remote_code"
        case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
            yield "allow_pickle=True"


def readme_tree(root: Path) -> Iterator[str]:
    """The tree in the README names every module and folder of the package, and no other."""
    package = root / "src" / "dynin"
    shown = set(re.findall(r"^  (\w+(?:/|\.py)) ", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    folders = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and has_files(path)}
    present = folders | {path.name for path in package.glob("*.py")}
    yield from (f"README.md: the tree lacks {name}" for name in sorted(present - shown))
    yield from (f"README.md: the tree shows {name}, which does not exist" for name in sorted(shown - present))


def has_files(folder: Path) -> bool:
    """Whether a folder is part of the package, not a leftover of a build."""
    return folder.name != "__pycache__" and any(path.is_file() for path in folder.iterdir())


def light_imports(root: Path) -> Iterator[str]:
    """`import dynin` and `dynin --help` do not wait for torch."""
    script = "import sys; import {module}; {call}; sys.exit(3 if 'torch' in sys.modules else 0)"
    attempts = {
        "import dynin": script.format(module="dynin", call="pass"),
        "dynin --help": (
            "import sys, atexit, os\n"
            "atexit.register(lambda: os._exit(3) if 'torch' in sys.modules else None)\n"
            "sys.argv = ['dynin', '--help']\n"
            "import dynin.__main__\n"
            "sys.exit(dynin.__main__.main())"
        ),
    }
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    for name, code in attempts.items():
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=root
        )
        if result.returncode == 3:
            yield f"{name}: imports torch; import it inside the command"
        elif result.returncode != 0:
            yield f"{name}: fails: {(result.stderr.strip().splitlines() or ['no message'])[-1]}"


LAWS: list[Callable[[Path], Iterator[str]]] = [
    readable,
    file_lengths,
    function_sizes,
    homeless_names,
    weights_and_sizes,
    ascii_code,
    banned_code,
    readme_tree,
    light_imports,
]


def main() -> int:
    """Print every finding; the exit status says whether there was one."""
    findings = [finding for law in LAWS for finding in law(ROOT)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
