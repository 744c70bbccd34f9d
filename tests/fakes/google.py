"""What the doubles of Google's services share: a server, and the judge of every request.

The judge is Google's own discovery document (path, query parameters, field names, types), which
the package of Google's client carries.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import uvicorn
from googleapiclient import discovery_cache  # type: ignore[import-untyped]
from starlette.applications import Starlette

HOST = "127.0.0.1"
_START_SECONDS = 10.0
_INT32 = {"minimum": -(2**31), "maximum": 2**31 - 1}
_DOCUMENTS = Path(discovery_cache.__file__).parent / "documents"


@contextmanager
def serve(app: Starlette, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """An app on a free port, over TLS with (certificate, key); yields its base URL."""
    listener = socket.create_server((HOST, 0))
    certificate, key = tls or (None, None)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="critical",
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the double did not start"
        time.sleep(0.01)
    try:
        yield f"{'https' if tls else 'http'}://{HOST}:{listener.getsockname()[1]}"
    finally:
        # clients keep connections open, which must not hold up the tests
        server.should_exit = server.force_exit = True
        thread.join(_START_SECONDS)
        listener.close()


class Discovery:
    """What a discovery document says of requests."""

    def __init__(self, name: str) -> None:
        self._document = json.loads((_DOCUMENTS / f"{name}.json").read_text(encoding="utf-8"))
        self._definitions = {
            key: _json_schema(schema) for key, schema in self._document["schemas"].items()
        }
        self._methods = list(_methods(self._document))

    def faults(self, verb: str, path: str, query: Sequence[tuple[str, str]], body: bytes) -> str:
        """What is wrong with a request; empty when nothing is."""
        method = next(
            (
                method
                for method in self._methods
                if method["httpMethod"] == verb and self._pattern(method).fullmatch(path)
            ),
            None,
        )
        if method is None:
            return f"no method {verb} {path}"
        allowed = self._document["parameters"] | {
            name: parameter
            for name, parameter in method["parameters"].items()
            if parameter["location"] == "query"
        }
        for name, value in query:
            if name not in allowed:
                return f"{method['id']} has no parameter {name}"
            if wrong := self._parameter_fault(method, allowed[name], value):
                return f"{name}: {wrong}"
        required = {name for name, parameter in allowed.items() if parameter.get("required")}
        if missing := required - {name for name, _ in query}:
            return f"{method['id']} lacks {missing}"
        return self._body_fault(method, body)

    def _pattern(self, method: dict[str, Any]) -> re.Pattern[str]:
        """``v1/apps/{appsId}`` as a pattern for paths."""
        flat = self._document.get("servicePath", "") + method["flatPath"]
        parts = re.split(r"\{\w+\}", flat)
        return re.compile("/" + r"[^/:]+".join(map(re.escape, parts)))

    def _parameter_fault(self, method: dict[str, Any], parameter: dict[str, Any], text: str) -> str:
        if parameter.get("format") == "google-fieldmask":
            known = self._document["schemas"][method["request"]["$ref"]]["properties"]
            unknown = set(text.split(",")) - set(known)
            return f"unknown fields {unknown}" if unknown else ""
        value: Any = text
        if parameter["type"] == "integer" and re.fullmatch(r"-?\d+", text):
            value = int(text)
        elif parameter["type"] == "boolean" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        return _fault(_json_schema(parameter), value)

    def _body_fault(self, method: dict[str, Any], body: bytes) -> str:
        if "request" not in method:
            return "a body where none belongs" if body else ""
        schema = {"$ref": f"#/$defs/{method['request']['$ref']}", "$defs": self._definitions}
        try:
            return _fault(schema, json.loads(body))
        except ValueError:
            return "the body is not JSON"


def _methods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for inner in resource.get("resources", {}).values():
        yield from _methods(inner)


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A discovery document's schema as a JSON schema that allows no field but those named."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    result = {key: schema[key] for key in ("type", "enum") if key in schema}
    if schema.get("type") == "any":
        del result["type"]
    if schema.get("format") == "int32":
        result |= _INT32
    if "items" in schema:
        result["items"] = _json_schema(schema["items"])
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        result["properties"] = {name: _json_schema(inner) for name, inner in properties.items()}
        more = schema.get("additionalProperties")
        result["additionalProperties"] = _json_schema(more) if more else False
    return result


def _fault(schema: dict[str, Any], value: Any) -> str:
    found = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    return "" if found is None else found.message
