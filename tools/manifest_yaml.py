"""The YAML of a manifest: a plain subset, of which the lines are known."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from tools.errors import BundleInvalid, breach


class StrictLoader(yaml.SafeLoader):
    """Plain YAML: no aliases (a small text could stand for gigabytes), no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed: write the value out", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        seen: set[str] = set()
        for key, _value in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def compose_manifest(text: str) -> yaml.Node | None:
    """Read the text as YAML nodes, which know their lines; None where it is no plain YAML."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return None
    return node


def load_yaml(text: str) -> Any:
    """Read the text of a manifest.

    Raises:
        BundleInvalid: It is no plain YAML; with the line where that can be told.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader with less
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        where = f"tool.yaml:{line}" if line else "tool.yaml"
        raise BundleInvalid([breach("MANIFEST_YAML", where, error.problem or "is not valid YAML")]) from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise BundleInvalid([breach("MANIFEST_YAML", "tool.yaml", f"is not valid YAML: {error}")]) from error
