"""Import rules that import-linter cannot express, checked on the source and in a fresh interpreter.

    python tools/check_imports.py [ROOT]

prints one line per violation and exits 1 if there is one. ROOT is the folder that holds ``ext3`` and ``sifkit``. Which layer
may import which is in pyproject.toml (``lint-imports``). Checked here: third-party packages, purity of planners, who sees
construct, modules that not every platform has, who prints, exits and reads the environment, texts of ext3 that name options,
and what a starting command loads.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["check", "check_light", "main"]

PACKAGES = ("ext3", "sifkit")

PURE = {"geometry", "new_geometry", "move_plan", "plan", "resize_plan", "placement", "select", "problems"}
PURE |= {
    "accounts",
    "binds",
    "cache_path",
    "config",
    "layer_plan",
    "mount_plan",
    "overlay_arguments",
    "plan_text",
    "request",
    "run_plan",
    "start",
}
IMPURE = {"os", "io", "time", "datetime", "random", "secrets", "uuid", "subprocess", "socket", "tempfile", "shutil", "pathlib"}
"""What a pure module does not import: it has no clock, no identity, no files."""

CONSTRUCT_USERS = {
    "ext3/format/field_kinds.py",
    "ext3/format/layout.py",
    "sifkit/sif/format/descriptor.py",
    "sifkit/sif/format/header.py",
    "sifkit/packed_struct.py",
}
CONSTRUCT_NAMES = ("schema.py", "_schema.py")

PLATFORM_ONLY = {"fcntl", "pwd", "grp", "termios", "resource", "tty", "pty", "syslog"}
"""Modules that Windows does not have: imported in a function, an ``if`` or a ``try``, but by the Linux-only runtime."""

THIRD_PARTY = {
    "ext3": {"construct", "numpy"},
    "sifkit": {"construct", "numpy", "typer", "click", "tqdm", "rich", "typing_extensions"},
}
OPTIONAL_IN_FUNCTIONS = {"ext3": set[str](), "sifkit": {"deflate", "lz4", "lzallright", "zstandard"}}
"""Allowed where the import is inside a function, so that the package works without it."""

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
PROGRAMS = {"system", "popen", "posix_spawn", "posix_spawnp", "spawnl", "spawnle", "spawnlp", "spawnv", "spawnve", "spawnvp"}
HEAVY = ("numpy", "construct", "rich", "tqdm", "ext3", "zstandard")
"""What ``import sifkit.cli`` does not load: each costs tens of milliseconds of every ``sifkit -h``."""


STARTED = (
    "sifkit.cli.support.running",
    "sifkit.runtime.planning.planner",
    "sifkit.runtime.host.image_facts",
    "sifkit.runtime.host.probing",
    "sifkit.runtime.launch",
    "sifkit.runtime.layers.kernel_layers",
    "sifkit.runtime.layers.served_layers",
    "sifkit.sif.descriptor_table",
    "sifkit.runtime.fuse.ext3_backend",
    "sifkit.runtime.fuse.writable_server",
    "sifkit.overlay.images.filesystem_opening",
    "sifkit.overlay.images.opening",
)
"""Modules that a start of ``sifkit exec`` and its servers load."""
SLOW_TO_LOAD = ("dataclasses", "inspect", "json", "uuid", "subprocess", "tempfile", "shutil")


@dataclass(frozen=True, slots=True)
class Imported:
    """One imported module: dotted name, line, and where in the file the statement is."""

    name: str
    line: int
    guarded: bool
    in_function: bool
    typing_only: bool


@dataclass(frozen=True, slots=True)
class Module:
    path: str
    name: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def part(self) -> str:
        """Folder or top-level module of the package; empty for the package itself."""
        pieces = self.name.split(".")
        return pieces[1] if len(pieces) > 1 else ""


def modules(root: Path) -> Iterator[Module]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            pieces = list(relative.with_suffix("").parts)
            if pieces[-1] == "__init__":
                pieces.pop()
            tree = ast.parse(path.read_bytes(), filename=str(relative))
            yield Module(relative.as_posix(), ".".join(pieces), tree)


def imports(module: Module, known: set[str]) -> Iterator[Imported]:
    """All imports of a module as absolute names; ``from . import x`` is the module x where there is one."""
    is_package = module.path.endswith("__init__.py")
    stack: list[tuple[ast.AST, bool, bool, bool]] = [(module.tree, False, False, False)]
    while stack:
        node, guarded, in_function, typing_only = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(alias.name, node.lineno, guarded, in_function, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                pieces = module.name.split(".")
                pieces = pieces[: len(pieces) - node.level + is_package]
                base = ".".join([*pieces, base] if base else pieces)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Imported(full if full in known else base, node.lineno, guarded, in_function, typing_only)
        for child in ast.iter_child_nodes(node):
            function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guard = guarded or isinstance(node, ast.Try | ast.If)
            typing = typing_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            stack.append((child, guard, function, typing))


def _check_import(module: Module, found: Imported) -> Iterator[str]:
    top = found.name.partition(".")[0]
    leaf = module.name.rpartition(".")[2]
    if top not in PACKAGES and top not in sys.stdlib_module_names and not found.typing_only:
        allowed = THIRD_PARTY[module.package]
        optional = top in OPTIONAL_IN_FUNCTIONS[module.package]
        if top not in allowed and not (found.in_function and optional):
            yield f"imports {top}, which {module.package} does not use" + (" outside functions" if optional else "")
    if leaf in PURE and top in IMPURE and not found.typing_only:
        yield f"a pure module imports {found.name}"
    if top == "construct" and module.path not in CONSTRUCT_USERS and not module.path.endswith(CONSTRUCT_NAMES):
        yield "imports construct: only layout, the schemas and SIF's descriptor and header do"
    if top == "subprocess":
        yield "imports subprocess: no external program in the packages"
    if top in PLATFORM_ONLY and not (found.guarded or found.in_function or found.typing_only) and module.part != "runtime":
        yield f"imports {top} unconditionally: not every platform has it"


def _check_texts(module: Module) -> Iterator[tuple[int, str]]:
    """Texts of ext3, error messages and docstrings alike, name no option or command of the program around it."""
    if module.package == "ext3":
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+|\bsifkit\b", node.value):
                    yield node.lineno, f"names {word}: ext3 states facts, the command line makes hints of them"


def _check_calls(module: Module) -> Iterator[tuple[int, str]]:
    """Environment, output and exit: the command line's alone. External programs: nobody's."""
    in_cli = module.package == "sifkit" and module.part in ("cli", "__main__")
    spoken = {"print", "input", "exit", "quit"}
    for node in ast.walk(module.tree):
        owner = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if isinstance(node, ast.Attribute) and owner == "os" and node.attr in PROGRAMS:
            yield node.lineno, f"os.{node.attr}: no external program in the packages"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            for alias in node.names:
                if alias.name in PROGRAMS or (alias.name in ENVIRONMENT and not in_cli):
                    yield node.lineno, f"imports os.{alias.name}"
        if in_cli:
            continue
        if isinstance(node, ast.Attribute) and owner == "os" and node.attr in ENVIRONMENT:
            yield node.lineno, f"os.{node.attr}: only the command line reads the environment"
        elif isinstance(node, ast.Attribute) and owner == "sys" and node.attr in {"exit", "argv", "stdout", "stderr"}:
            yield node.lineno, f"sys.{node.attr}: only the command line prints and exits"
        elif isinstance(node, ast.ImportFrom) and node.module == "sys" and {a.name for a in node.names} & {"exit", "argv"}:
            yield node.lineno, "imports from sys what only the command line uses"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in spoken:
            yield node.lineno, f"{node.func.id}(): only the command line prints, asks and exits"


def check(root: Path) -> list[str]:
    """Violations in the source below ``root``, one line each, by file and line."""
    found_modules = list(modules(root))
    known = {module.name for module in found_modules}
    lines: list[str] = []
    for module in found_modules:
        problems = {*_check_calls(module), *_check_texts(module)}
        for found in imports(module, known):
            problems |= {(found.line, text) for text in _check_import(module, found)}
        lines += [f"{module.path}:{line}: {text}" for line, text in sorted(problems)]
    return lines


def check_light(root: Path, module: str = "sifkit.cli", heavy: Sequence[str] = HEAVY) -> list[str]:
    """Modules of ``heavy`` that a fresh interpreter loads for ``module``, and should not; but those it has loaded itself."""
    code = (
        f"import sys; before = set(sys.modules); import {module}; "
        f"print(*sorted({{name.partition('.')[0] for name in set(sys.modules) - before}} & set({heavy!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"import {module} fails: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"]
    return [f"import {module} loads {name}: load it inside the command that needs it" for name in done.stdout.split()]


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    lines = check(root)
    if (root / "sifkit" / "cli").exists():
        lines += check_light(root)
    if (root / "sifkit" / "overlay" / "creating" / "standalone.py").exists():
        # the scan begins before they are loaded
        lines += check_light(root, "sifkit.overlay.creating.standalone", ("numpy", "construct"))
    views = sorted(f"sifkit.vfs.{path.stem}" for path in (root / "sifkit" / "vfs").glob("*.py") if path.stem != "__init__")
    if views:
        lines += check_light(root, ", ".join(views), ("numpy", "construct"))
    if (root / "sifkit" / "squashfs" / "reader.py").exists():
        # a server for each container: start-up and memory count
        lines += check_light(root, "sifkit.squashfs.reader", ("numpy", "construct", "zstandard", "rich"))
    if (root / "sifkit" / "runtime" / "launch.py").exists():
        # started a thousand times by a job
        lines += check_light(root, ", ".join(STARTED), (*SLOW_TO_LOAD, "numpy", "construct", "rich", "typer"))
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
