"""Factory Factory's export, of which only version 4 is known (DOMAIN.md section 5). Blocking."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

from ff_core.importing import shaping
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.found import PROJECTS_MAX, SESSIONS_MAX, WORKSPACES_MAX, Found

SCHEMA_VERSION = 4
EXPORT_BYTES_MAX = 256 * 1024**2


def read(path: Path, *, bytes_max: int = EXPORT_BYTES_MAX) -> Found:
    """Read it. Raises ``ImportUnreadable``."""
    document = _parsed(path, bytes_max)
    meta = document.get("meta")
    version = meta.get("schemaVersion") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(version, int) or isinstance(version, bool):
        raise ImportUnreadable(f"{path} is no export of Factory Factory: it has no meta.schemaVersion.")
    if version != SCHEMA_VERSION:
        raise ImportUnreadable(
            f"{path} is an export of version {version}, and only version {SCHEMA_VERSION} can be read;"
            " export again with a newer Factory Factory, or import its data.db."
        )
    data = document.get("data")
    if not isinstance(data, dict):
        raise ImportUnreadable(f"{path} has no object data.")
    settings = data.get("userSettings")
    return Found(
        source=path,
        layout=_layout(meta),
        projects=tuple(shaping.project(one) for one in _objects(path, data, "projects", PROJECTS_MAX)),
        workspaces=tuple(shaping.workspace(one) for one in _objects(path, data, "workspaces", WORKSPACES_MAX)),
        sessions=tuple(shaping.session(one) for one in _objects(path, data, "agentSessions", SESSIONS_MAX)),
        permissions=shaping.permissions(settings if isinstance(settings, dict) else None),
    )


def _parsed(path: Path, bytes_max: int) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as exc:
        raise ImportUnreadable(f"{path} can't be read: {exc.strerror or exc}.") from exc
    if len(content) > bytes_max:
        raise ImportUnreadable(f"{path} is larger than the {bytes_max} bytes that are read of an export.")
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise ImportUnreadable(f"{path} is not JSON, or is cut off.") from exc
    if not isinstance(document, dict):
        raise ImportUnreadable(f"{path} is JSON, but no export of Factory Factory.")
    return document


def _objects(path: Path, data: dict[str, Any], name: str, objects_max: int) -> Iterator[dict[str, Any]]:
    found = data.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ImportUnreadable(f"{path} has no list of objects data.{name}.")
    if len(found) > objects_max:
        raise ImportUnreadable(f"{path} has more than {objects_max} objects in data.{name}.")
    return iter(found)


def _layout(meta: dict[str, Any]) -> str:
    said = [shaping.label(value) if isinstance(value := meta.get(name), str) else None for name in ("version", "exportedAt")]
    version, at = said
    return f"export v{SCHEMA_VERSION}" + (f" of Factory Factory {version}" if version else "") + (f" from {at}" if at else "")


def _refuse(constant: str) -> Never:
    raise ValueError(constant)
