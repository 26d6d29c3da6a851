"""The figures of a Python file, counted from its text. Pure: no files, no database."""

import ast
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """The counts for one source file. The fields have the names of SourceFile's columns."""

    lines: int = 0
    functions: int = 0
    coroutines: int = 0
    classes: int = 0
    documented_module: bool = False
    documented_functions: int = 0
    documented_classes: int = 0
    problem: str = ""


def figures_of(text: str) -> Figures:
    lines = text.count("\n") + bool(text and not text.endswith("\n"))
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte in the text
        return Figures(lines=lines, problem=str(error)[:500])
    nodes = list(ast.walk(module))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    return Figures(
        lines=lines,
        functions=len(functions),
        coroutines=sum(isinstance(node, ast.AsyncFunctionDef) for node in functions),
        classes=len(classes),
        documented_module=ast.get_docstring(module) is not None,
        documented_functions=sum(ast.get_docstring(node) is not None for node in functions),
        documented_classes=sum(ast.get_docstring(node) is not None for node in classes),
    )
