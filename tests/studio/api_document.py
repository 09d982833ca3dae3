"""The API's document, and a check of answers against it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

DOCS = Path(__file__).parents[2] / "docs"
METHODS = ("get", "put", "post", "delete", "patch")


class ApiDocument:
    """``docs/studio-api.yaml``, or the one of the service.

    Args:
        name: of the file.
    """

    def __init__(self, name: str = "studio-api.yaml") -> None:
        self.content: dict[str, Any] = yaml.safe_load((DOCS / name).read_text(encoding="utf-8"))

    def operations(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What can be asked, by method and path."""
        return {
            (method.upper(), path): item[method]
            for path, item in self.content["paths"].items()
            for method in METHODS
            if method in item
        }

    def follow(self, value: Any) -> Any:
        """Give what a reference stands for."""
        while isinstance(value, dict) and "$ref" in value:
            target: Any = self.content
            for key in value["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            value = target
        return value

    def check(self, schema: Any, value: Any) -> None:
        """Fail where ``value`` is not what ``schema`` says."""
        whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        whole["components"] = self.content["components"]
        Draft202012Validator(whole).validate(value)

    def check_answer(self, method: str, address: str, status: int, body: Any) -> tuple[str, str]:
        """Fail where an answer is not documented, or looks otherwise. Returns method and path of the operation."""
        asked = address.partition("?")[0]
        for (known, path), operation in self.operations().items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
            if known == method and re.fullmatch(pattern, asked):
                answer = self.follow(operation["responses"][str(status)])
                self.check(answer["content"]["application/json"]["schema"], body)
                return known, path
        raise AssertionError(f"{method} {asked} is not documented")
