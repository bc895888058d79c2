"""A module's top-level definitions in a form that can be compared between modules, however they import names.

Each name is resolved to what it means: `load` in experiments/cifar.py to experiments.cifar.load, `np.zeros` to
numpy.zeros, a path that is made from __file__ to where it leads. Names that a function binds stay as they are. Imports
are not definitions, nor are the lines that make a file a script: `if __name__ == "__main__"`, and the project root on
sys.path.
"""

from __future__ import annotations

import ast
import io
import posixpath
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Dotted = dict[str, str | None]  # the meaning of each bound name; None if it is known only when the code runs
PRAGMAS = ("# type:", "# noqa", "# fmt:", "# ruff:", "#!")


@dataclass(frozen=True)
class Definition:
    """Statements at a module's top level that bind the same names, or one that binds none."""

    names: tuple[str, ...]
    code: str  # with all names resolved, so that equal code does the same
    words: tuple[str, ...] = field(compare=False)  # docstrings and comments

    @property
    def title(self) -> str:
        return ", ".join(self.names) or self.code.splitlines()[0]


def module_name(path: str) -> str:
    """experiments/p4/training.py → experiments.p4.training."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def longest(name: str, renames: Mapping[str, str], separator: str = ".") -> str:
    """The name with its longest renamed prefix replaced, unless it has the new one already."""
    parts = name.split(separator)
    for end in range(len(parts), 0, -1):
        head = separator.join(parts[:end])
        if head in renames and not f"{name}{separator}".startswith(f"{renames[head]}{separator}"):
            return separator.join([renames[head], *parts[end:]])
    return name


def latest(name: str, renames: Mapping[str, str], separator: str = ".") -> str:
    """The name after all its renames, one after the other; a name renamed to itself stays."""
    seen = set[str]()
    while name not in seen:
        seen.add(name)
        name = longest(name, renames, separator)
    return name


class _Bound(ast.NodeVisitor):
    """The names that statements bind in their own scope."""

    def __init__(self) -> None:
        self.names: Dotted = {}
        self.outer: set[str] = set()

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.names[node.name] = None

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _defined

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def _comprehension(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.names[inner.target.id] = None

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.names[node.id] = None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            self.names[alias.asname or top] = alias.name if alias.asname else top

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if node.level or alias.name == "*":
                raise ValueError(f"line {node.lineno}: relative imports and * can't be resolved")
            self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names[node.name] = None
        self.generic_visit(node)

    def _match(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.names[name] = None
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _match

    def _elsewhere(self, node: ast.Global | ast.Nonlocal) -> None:
        self.outer |= set(node.names)

    visit_Global = visit_Nonlocal = _elsewhere


def bound(statements: list[ast.stmt]) -> Dotted:
    """The names that statements bind in their own scope, with what imported ones mean."""
    visitor = _Bound()
    for statement in statements:
        visitor.visit(statement)
    return {name: what for name, what in visitor.names.items() if name not in visitor.outer}


@dataclass
class _Scope:
    names: Dotted
    of_class: bool = False  # whose names functions inside don't see


class _Resolver(ast.NodeTransformer):
    """Replaces each global name, with its attributes, by its meaning under today's names."""

    def __init__(self, path: str, top: Dotted, renames: Mapping[str, str], files: Mapping[str, str]) -> None:
        self.path, self.renames, self.files = path, renames, files
        module = module_name(path)
        self.top = {name: what or f"{module}.{name}" for name, what in top.items()}
        self.scopes: list[_Scope] = []
        self.words: list[str] = []

    def _meaning(self, name: str) -> str | None:
        """The meaning of a name; itself for a builtin, None where a function binds it."""
        for depth, scope in enumerate(reversed(self.scopes)):
            if name in scope.names and not (scope.of_class and depth):
                return scope.names[name]
        return f"{name} of {module_name(self.path)}" if name == "__name__" else self.top.get(name, name)

    def _now(self, dotted: str) -> str:
        return latest(dotted, self.renames)

    def _chain(self, node: ast.expr) -> str | None:
        """The meaning of a name with its attributes, where it is known before the code runs."""
        if isinstance(node, ast.Name):
            return self._meaning(node.id)
        if isinstance(node, ast.Attribute) and (base := self._chain(node.value)):
            return f"{base}.{node.attr}"
        return None

    def _place(self, node: ast.AST) -> str | None:
        """The path from the project root that an expression makes from __file__."""
        if isinstance(node, ast.Name) and node.id == "__file__":
            return self.path
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            left = self._place(node.left)
            return None if left is None else posixpath.join(left, str(node.right.value))
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            left = self._place(node.value)
            return None if left is None else posixpath.dirname(left)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "parents":
            left = self._place(node.value.value)
            if left is None or not isinstance(node.slice, ast.Constant):
                return None
            return "/".join(left.split("/")[: -1 - int(str(node.slice.value))])
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("resolve", "with_name"):
                left = self._place(node.func.value)
                if left is None or not all(isinstance(a, ast.Constant) for a in node.args):
                    return None
                more = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
                return posixpath.join(posixpath.dirname(left), *more) if more else left
            if self._chain(node.func) == "pathlib.Path" and len(node.args) == 1:
                return self._place(node.args[0])
        return None

    def visit(self, node: ast.AST) -> ast.AST:
        place = self._place(node)
        if place is not None:
            return ast.Name(f"<{latest(place, self.files, '/')}>", ast.Load())
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        meaning = self._meaning(node.id)
        return node if meaning is None else ast.Name(self._now(meaning), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        meaning = self._chain(node)
        return self.generic_visit(node) if meaning is None else ast.Name(self._now(meaning), node.ctx)

    def _import(self, node: ast.Import | ast.ImportFrom) -> ast.AST:
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        meanings = sorted(self._now(module + alias.name) for alias in node.names)
        return ast.Expr(ast.Constant(f"import {', '.join(meanings)}"))

    visit_Import = visit_ImportFrom = _import

    def _docstring(self, body: list[ast.stmt]) -> list[ast.stmt]:
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            self.words.append(" ".join(first.value.value.split()))
            return body[1:]
        return body

    def _inside(self, body: list[ast.stmt], scope: _Scope) -> list[ast.stmt]:
        self.scopes.append(scope)
        made = [self.visit(statement) for statement in self._docstring(body)]
        self.scopes.pop()
        return made  # type: ignore[return-value]

    def _own_name(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
        return node.name if self.scopes else self._now(str(self._meaning(node.name)))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        arguments: Dotted = {a.arg: None for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        body = self._inside(node.body, _Scope(arguments | bound(node.body)))
        node.name = self._own_name(node)
        node.args = self.visit(node.args)  # type: ignore[assignment]
        node.decorator_list = [self.visit(d) for d in node.decorator_list]  # type: ignore[misc]
        node.returns = node.returns and self.visit(node.returns)  # type: ignore[assignment]
        node.body = body
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        arguments: Dotted = {a.arg: None for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        node.args = self.visit(node.args)  # type: ignore[assignment]
        self.scopes.append(_Scope(arguments))
        node.body = self.visit(node.body)  # type: ignore[assignment]
        self.scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        body = self._inside(node.body, _Scope(bound(node.body), of_class=True))
        node.name = self._own_name(node)
        for part in ("bases", "keywords", "decorator_list"):
            setattr(node, part, [self.visit(inner) for inner in getattr(node, part)])
        node.body = body
        return node

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        first = self.visit(node.generators[0].iter)  # outside of the comprehension's scope
        node.generators[0].iter = ast.Constant(None)
        targets = [t for g in node.generators for t in ast.walk(g.target) if isinstance(t, ast.Name)]
        self.scopes.append(_Scope({t.id: None for t in targets if isinstance(t.ctx, ast.Store)}))
        self.generic_visit(node)
        self.scopes.pop()
        node.generators[0].iter = first  # type: ignore[assignment]
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _comments(text: str) -> dict[int, str]:
    """Comments by line, without those addressed to tools."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    return {line: words for line, words in found.items() if not words.startswith(PRAGMAS)}


def _is_import(statement: ast.stmt) -> bool:
    """Whether a statement only imports, perhaps under a condition, or makes the file a script."""
    if isinstance(statement, ast.If):
        return "__name__" in ast.unparse(statement.test) or all(map(_is_import, statement.body + statement.orelse))
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) or ast.unparse(statement).startswith("sys.path.insert(")
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _groups(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], list[ast.stmt]]]:
    """The statements that are definitions, grouped by the names that they bind."""
    found: dict[tuple[str, ...], list[ast.stmt]] = {}
    for number, statement in enumerate(tree.body):
        if not _is_import(statement):
            names = tuple(sorted(bound([statement])))
            found.setdefault(names or (f"\0{number}",), []).append(statement)
    for names, statements in found.items():
        yield (() if names[0].startswith("\0") else names), statements


def names_of(text: str) -> list[str]:
    """The names that a module's definitions bind."""
    return [name for names, _ in _groups(ast.parse(text)) for name in names]


def definitions(
    path: str, text: str, renames: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> list[Definition]:
    """A module's definitions, by its path from the project root and its text.

    `renames` says under which dotted names others are known now, `files` the same of paths. Raises ValueError for code
    that can't be resolved, and SyntaxError.
    """
    tree, comments = ast.parse(text), _comments(text)
    top = bound(tree.body)
    found = []
    for names, statements in _groups(tree):
        words: list[str] = []
        code = []
        for statement in statements:
            decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
            first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
            while first - 1 in comments and text.splitlines()[first - 2].startswith("#"):
                first -= 1
            last = statement.end_lineno or statement.lineno
            words += [comments[line] for line in range(first, last + 1) if line in comments]
            resolver = _Resolver(path, top, renames or {}, files or {})
            made = resolver.visit(statement)
            code.append(ast.unparse(ast.fix_missing_locations(made)))
            words += resolver.words
        found.append(Definition(names, "\n".join(code), tuple(words)))
    return found
