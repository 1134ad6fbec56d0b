"""Fields of configs that take a model of the class that a registry has for its kind."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from em_blocks.plugins import Registry


class ByKind:
    """Annotation of such a field: ``Annotated[Base, ByKind(REGISTRY)]``.

    A class is imported when a config names its kind, so that other packages can add some and a broken
    package affects only configs that use it. The JSON Schema lists those of em_blocks.

    Parameters
    ----------
    registry : Registry
        Of subclasses of the annotated base.
    default : str, optional
        The kind of values that say none.
    key : str
        The key of values that names their kind.
    """

    def __init__(self, registry: Registry, default: str | None = None, key: str = "kind"):
        self.registry, self.default, self.key = registry, default, key

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def validate(value: Any, info: ValidationInfo) -> Any:
            return value if isinstance(value, source) else self._made(value, info)

        return core_schema.with_info_plain_validator_function(validate)

    def _made(self, value: Any, info: ValidationInfo) -> Any:
        kind = value.get(self.key, self.default) if isinstance(value, dict) else None
        if kind not in self.registry.names():
            raise ValueError(
                f"the `{self.key}` must be one of {', '.join(self.registry.names())}; other packages "
                f"add some by entry points of the group {self.registry.group!r}"
            )
        return self.registry.get(kind).model_validate(value, context=info.context)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        classes = [self.registry.get(kind) for kind in self.registry.builtin]
        return handler(
            core_schema.union_schema([cls.__pydantic_core_schema__ for cls in classes])
        )
