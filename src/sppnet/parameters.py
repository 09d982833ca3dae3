"""Parameters as scikit-learn's estimators have them, so that ``clone`` and parameter searches work. It isn't needed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Self

from sppnet.errors import ArgumentError

__all__ = ["Parameters"]


class Parameters:
    """Base of a class whose ``__init__`` stores each of its arguments, untouched, under the argument's name.

    A parameter may be a frozen dataclass. One field of it is named ``parameter__field``, as scikit-learn names the
    parameters of nested estimators.
    """

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        signature = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in signature if p.name != "self"}

    def _check_parameters(self, values: Mapping[str, Any]) -> None:
        """Refuse wrong values of parameters; ``values`` holds all of them by name. For subclasses."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of ``__init__`` by name.

        Args:
            deep: also the fields of parameters that are dataclasses, as ``parameter__field``.
        """
        params = {name: getattr(self, name) for name in sorted(self._defaults())}
        if deep:
            for name, value in list(params.items()):
                if is_dataclass(value) and not isinstance(value, type):
                    params |= {f"{name}__{field.name}": getattr(value, field.name) for field in fields(value)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set arguments of ``__init__``, or fields of them (``parameter__field``), by name.

        What was learned stays as it is.

        Raises:
            ArgumentError: there is no such parameter, or a value is out of its range. Nothing is changed then.
        """
        values = self.get_params(deep=False)
        nested: dict[str, dict[str, Any]] = {}
        for name, value in params.items():
            outer, _, inner = name.partition("__")
            if outer not in values:
                raise ArgumentError(
                    f"{type(self).__name__} has no parameter {outer!r}, expected one of {', '.join(sorted(values))}"
                )
            if inner:
                nested.setdefault(outer, {})[inner] = value
            else:
                values[name] = value
        for outer, changes in nested.items():
            whole = values[outer]
            known = [field.name for field in fields(whole)] if is_dataclass(whole) else []
            unknown = [inner for inner in changes if inner not in known]
            if whole is None:
                inner = next(iter(changes))
                raise ArgumentError(f"{outer}: is None, so {outer}__{inner} can't be set; set {outer} first")
            if unknown:
                raise ArgumentError(
                    f"{outer} of {type(self).__name__} has no field {unknown[0]!r}, expected one of "
                    f"{', '.join(known) or 'none'}"
                )
            values[outer] = replace(whole, **changes)
        self._check_parameters(values)
        for name, value in values.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the call that makes such an object, without arguments that have their default value."""
        changed = {
            name: value
            for name, default in self._defaults().items()
            if (value := getattr(self, name)) is not default and value != default
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"
