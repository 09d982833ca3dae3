"""Parameters as scikit-learn's estimators have them, so that ``clone`` and parameter searches work; it isn't needed."""

from __future__ import annotations

import inspect
from typing import Any, Self

from sppnet.errors import ArgumentError

__all__ = ["Parameters"]


class Parameters:
    """Base of a class whose ``__init__`` stores each of its arguments, untouched, under the argument's name."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        signature = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in signature if p.name != "self"}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of ``__init__`` by name.

        Args:
            deep: no difference here; scikit-learn passes it.
        """
        return {name: getattr(self, name) for name in sorted(self._defaults())}

    def set_params(self, **params: Any) -> Self:
        """Set arguments of ``__init__`` by name. What was learned stays as it is.

        Raises:
            ArgumentError: there is no such parameter; none is set then.
        """
        known = self._defaults()
        unknown = [name for name in params if name not in known]
        if unknown:
            raise ArgumentError(
                f"{type(self).__name__} has no parameter {unknown[0]!r}, expected one of {', '.join(sorted(known))}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = {
            name: value
            for name, default in self._defaults().items()
            if (value := getattr(self, name)) is not default and value != default
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"
