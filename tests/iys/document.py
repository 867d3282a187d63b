"""İYS's own OpenAPI document, which is checked against and never copied: the variable IYS_OPENAPI says where it is."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import jsonpatch
import msgspec
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

KNOWN: Final = {"6af7cddbec8dda91140e2c6da8e1a1c37704758a88939984572f805888566e31": "3.2.0 - 25/02/2026"}
"""Documents whose changes were looked at: digest and version."""

_CODE: Final = re.compile(r"\bH[0-9]{3}\b")
_HOME: Final = "urn:iys"
_UNKNOWN: Final = "unknown key "


class Erratum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A patch of the document and why it is right. `only_ours`: no example needs it, but the fake does."""

    reason: str
    patch: list[dict[str, object]]
    only_ours: bool = False


class Example(NamedTuple):
    """An example of the document: of an operation's request (status 0) or answer."""

    name: str
    status: int
    content_type: str
    value: object


@dataclass(frozen=True)
class Document:
    """The document with its errata mended."""

    content: Mapping[str, Any]
    digest: str

    @classmethod
    def load(cls, path: Path, errata: Sequence[Erratum]) -> "Document":
        """Read and mend the document."""
        raw = path.read_bytes()
        content = msgspec.json.decode(raw)
        for erratum in errata:
            jsonpatch.apply_patch(content, erratum.patch, in_place=True)
        return cls(content, hashlib.sha256(raw).hexdigest())

    @cached_property
    def codes(self) -> frozenset[str]:
        """All codes of errors that stand anywhere in it."""
        return frozenset(_CODE.findall(str(self.content)))

    def has(self, method: str, path: str) -> bool:
        """Say whether there is such an operation; `path` is a template."""
        return method.lower() in self.content["paths"].get(path, {})

    def statuses(self, method: str, path: str) -> frozenset[int]:
        """Give the statuses that an operation may answer with."""
        return frozenset(map(int, self._operation(method, path)["responses"]))

    def examples(self, method: str, path: str) -> Iterator[Example]:
        """Give all examples of an operation in JSON."""
        operation = self._operation(method, path)
        parts = {int(status): answer for status, answer in operation["responses"].items()}
        parts[0] = operation.get("requestBody", {})
        for status, part in parts.items():
            for content_type, content in part.get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    if "json" in content_type and "value" in example:
                        yield Example(name, status, content_type, example["value"])

    def wrong_in_answer(self, method: str, path: str, status: int, body: object) -> list[str]:
        """Say what is wrong with the body of an answer: against its schema, and keys that nobody knows."""
        wrong = self._wrong(method, path, ("responses", str(status)), "application/json", body)
        # Refusals are spelled in one way at some operations and in another at others: any may have any of these keys.
        known = self._keys_of_refusals if status >= HTTPStatus.BAD_REQUEST else frozenset()
        return [text for text in wrong if text.removeprefix(_UNKNOWN) not in known]

    def wrong_in_body(self, method: str, path: str, content_type: str, body: object) -> list[str]:
        """Say what is wrong with the body of a request."""
        return self._wrong(method, path, ("requestBody",), content_type, body)

    def wrong_in_query(self, method: str, path: str, query: Mapping[str, str]) -> list[str]:
        """Say what is wrong with the parameters of a request."""
        known = {
            parameter["name"]: parameter["schema"]
            for parameter in self._operation(method, path).get("parameters", ())
            if parameter["in"] == "query"
        }
        wrong = [f"parameter {name}" for name in query if name not in known]
        for name in known.keys() & query.keys():
            value = int(query[name]) if known[name]["type"] == "integer" else query[name]
            wrong += [error.message for error in OAS30Validator(known[name]).iter_errors(value)]
        return wrong

    def contradictions(self, method: str, path: str) -> list[str]:
        """Give the examples of an operation that its own schema does not allow."""
        found = []
        for example in self.examples(method, path):
            where = ("responses", str(example.status)) if example.status else ("requestBody",)
            if self._against_schema(method, path, where, example.content_type, example.value):
                found.append(example.name)
        return found

    @cached_property
    def _keys_of_refusals(self) -> frozenset[str]:
        found: set[str] = set()
        for operation in (o for path in self.content["paths"].values() for o in path.values() if isinstance(o, dict)):
            for status, answer in operation["responses"].items():
                if int(status) == HTTPStatus.FORBIDDEN:
                    found |= set(_keys([each.get("examples") for each in answer.get("content", {}).values()]))
        return frozenset(found)

    def _operation(self, method: str, path: str) -> Mapping[str, Any]:
        operation: Mapping[str, Any] = self.content["paths"][path][method.lower()]
        return operation

    def _wrong(self, method: str, path: str, where: tuple[str, ...], content_type: str, body: object) -> list[str]:
        part: Any = self._operation(method, path)
        for name in where:
            part = part[name]
        content = part.get("content", {}).get(content_type)
        if content is None:
            return [f"no {content_type}"]
        known = set(_properties(content["schema"], self.content)) | set(_keys(content.get("examples", {})))
        wrong = self._against_schema(method, path, where, content_type, body)
        return wrong + [f"{_UNKNOWN}{key}" for key in _keys(body) if key not in known]

    def _against_schema(
        self, method: str, path: str, where: tuple[str, ...], content_type: str, body: object
    ) -> list[str]:
        steps = ("paths", path, method.lower(), *where, "content", content_type, "schema")
        pointer = "/".join(quote(step.replace("~", "~0").replace("/", "~1")) for step in steps)
        validator = OAS30Validator({"$ref": f"{_HOME}#/{pointer}"}, registry=self._registry)
        return [error.message for error in validator.iter_errors(body)]

    @cached_property
    def _registry(self) -> Registry[Any]:
        registry: Registry[Any] = Registry().with_resource(_HOME, DRAFT202012.create_resource(self.content))
        return registry


def _keys(value: object) -> Iterator[str]:
    """Give all keys of all objects in a value."""
    if isinstance(value, dict):
        yield from value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _keys(each)


def _properties(schema: object, content: Mapping[str, Any]) -> Iterator[str]:
    """Give the names of all properties in a schema and in those that it refers to."""
    if isinstance(schema, list):
        for each in schema:
            yield from _properties(each, content)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("$ref"), str):
        target: Any = content
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        yield from _properties(target, content)
    yield from schema.get("properties", {})
    for name, each in schema.items():
        if name not in {"example", "x-examples", "$ref"}:
            yield from _properties(each, content)
