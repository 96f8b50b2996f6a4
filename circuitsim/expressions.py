"""Expressions that may come from anywhere: read, checked and never evaluated by Python.

They are those of Brian2, less what a rule of plasticity does not need: numbers, variables,
``+ - * / **`` and `FUNCTIONS`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitsim.public import own

__dir__ = own(__name__, "FUNCTIONS")

# All take one number, clip three, of which two may be inf. Brian2 has them by the same names.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "arctan": np.arctan,
    "clip": np.clip,
    "cos": np.cos,
    "exp": np.exp,
    "log": np.log,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}

_LONGEST = 200  # characters
_HIGHEST_POWER = 9


@dataclass(frozen=True)
class Expression:
    """An expression that has been checked.

    Attributes
    ----------
    text : str
        It, always written in the same way.
    names : frozenset of str
        Variables that it uses.
    coefficients : dict or None
        Of its variables, those that are not zero, with ``""`` for a constant; None if it is not
        linear in them.
    """

    text: str
    names: frozenset[str]
    coefficients: dict[str, float] | None


def read(text: str, variables: Sequence[str], longest: int | None = _LONGEST) -> Expression:
    """Read an expression of some variables, of at most ``longest`` characters.

    Raises
    ------
    ValueError
        If it is none. The message says what it must be like.

    Examples
    --------
    >>> read("2*(r - b)/4", ("r", "b"))
    Expression(text='2 * (r - b) / 4', names=frozenset({...}), coefficients={'r': 0.5, 'b': -0.5})
    >>> read("__import__('os')", ("r", "b"))
    Traceback (most recent call last):
    ValueError: may call only abs, arctan, clip, cos, exp, log, sign, sin, sqrt, tanh
    """
    if not isinstance(text, str) or (longest is not None and len(text) > longest):
        raise ValueError(f"must be an expression of at most {_LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        coefficients = _Reader(variables).linear(tree)
        written = ast.unparse(tree)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("must be an expression such as r - b - 0.5*r_inh") from None
    except ArithmeticError:
        raise ValueError("must have numbers that are finite") from None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Expression(written, frozenset(names.intersection(variables)), coefficients)


def portable(text: str) -> str:
    """Return an expression that means the same in every language that code is made in.

    In some of them ``2**-1`` is 0, and ``1/3`` a number of single precision: whole numbers divide,
    and are raised to powers, in their own way. So constants are computed here, and whole numbers
    are written as others are, except for exponents that are not negative.

    Parameters
    ----------
    text : str
        An expression that `read` has checked.

    Examples
    --------
    >>> portable("2**-1*r**3 - b/3")
    '0.5 * r ** 3 - b / 3.0'
    """
    return ast.unparse(_Portable().visit(ast.parse(text, mode="eval")))


class _Portable(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and not isinstance(node, ast.Name):
            value = _constant(_Reader(_names(node)).linear(node))
            if value is not None:
                return ast.copy_location(_number(value), node)
        return super().visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        if isinstance(node.op, ast.Pow):
            exponent = node.right
            node.left = self.visit(node.left)
            if not (isinstance(exponent, ast.Constant) and isinstance(exponent.value, int)):
                node.right = self.visit(exponent)
            return node
        self.generic_visit(node)
        return node


def _names(node: ast.AST) -> tuple[str, ...]:
    return tuple(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id not in FUNCTIONS)


def _number(value: float) -> ast.expr:
    number = ast.Constant(abs(value))
    return ast.UnaryOp(ast.USub(), number) if math.copysign(1, value) < 0 else number


_Form = dict[str, float] | None


class _Reader:
    """Finds the coefficients of expressions, and refuses what may not be in them."""

    def __init__(self, variables: Sequence[str]) -> None:
        self.variables = variables

    def linear(self, node: ast.expr) -> _Form:
        """Coefficients without zeros, "" for the constant; None if it is not linear.

        Raises
        ------
        ValueError, ArithmeticError
            If it has what it may not have, or numbers overflow.
        """
        match node:
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return _finite({"": float(value)})
            case ast.Name("inf"):
                return None
            case ast.Name(name):
                if name not in self.variables:
                    raise ValueError(f"must use {', '.join(self.variables)} and no other variable")
                return {name: 1.0}
            case ast.UnaryOp(ast.UAdd() | ast.USub() as sign, operand):
                return _scaled(self.linear(operand), -1.0 if isinstance(sign, ast.USub) else 1.0)
            case ast.BinOp(base, ast.Pow(), exponent):
                return self._power(base, exponent)
            case ast.BinOp(left, ast.Add() | ast.Sub() as sign, right):
                a, b = self.linear(left), self.linear(right)
                return _sum(a, _scaled(b, -1.0 if isinstance(sign, ast.Sub) else 1.0))
            case ast.BinOp(left, ast.Mult(), right):
                a, b = self.linear(left), self.linear(right)
                if (factor := _constant(a)) is not None:
                    return _scaled(b, factor)
                return None if (factor := _constant(b)) is None else _scaled(a, factor)
            case ast.BinOp(left, ast.Div(), right):
                a, b = self.linear(left), self.linear(right)
                return None if (divisor := _constant(b)) is None else _scaled(a, 1 / divisor)
            case ast.Call(ast.Name(name), arguments, []):
                return self._call(name, arguments)
        raise ValueError("must consist of numbers, variables, + - * / ** and functions of them")

    def _call(self, name: str, arguments: list[ast.expr]) -> _Form:
        if name not in FUNCTIONS:
            raise ValueError(f"may call only {', '.join(FUNCTIONS)}")
        if len(arguments) != (3 if name == "clip" else 1):
            raise ValueError(f"must call {name} with as many values as it takes")
        values = [_constant(self.linear(argument)) for argument in arguments]
        if None in values:
            return None
        with np.errstate(all="ignore"):
            return _finite({"": float(FUNCTIONS[name](*values))})

    def _power(self, base: ast.expr, exponent: ast.expr) -> _Form:
        # Powers of powers could be numbers that take for ever to write down.
        number = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
        power = _constant(self.linear(exponent)) if isinstance(number, ast.Constant) else None
        nested = any(isinstance(node, ast.Pow) for node in ast.walk(base))
        if nested or power is None or abs(power) > _HIGHEST_POWER:
            raise ValueError(f"powers must be plain numbers up to {_HIGHEST_POWER}, not of powers")
        form = self.linear(base)
        if (constant := _constant(form)) is not None:
            with np.errstate(all="ignore"):
                return _finite({"": float(np.float64(constant) ** power)})
        return form if power == 1 else None


def _constant(form: _Form) -> float | None:
    """The value of a constant, None of anything else."""
    return form.get("", 0.0) if form is not None and form.keys() <= {""} else None


def _scaled(form: _Form, factor: float) -> _Form:
    if form is None:
        return None
    return _finite({name: factor * value for name, value in form.items()})


def _sum(a: _Form, b: _Form) -> _Form:
    if a is None or b is None:
        return None
    return _finite({name: a.get(name, 0.0) + b.get(name, 0.0) for name in a | b})


def _finite(form: dict[str, float]) -> dict[str, float]:
    """Leave out zeros, and refuse what is no number or too large for one."""
    if not all(map(math.isfinite, form.values())):
        raise ArithmeticError
    return {name: value for name, value in form.items() if value != 0}
