"""`spgsurgeon doctor`."""

from __future__ import annotations

from typing import Any

import typer

from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.text import BAD, GOOD, OPEN, coloured, columns, gigabytes, pairs


def command() -> None:
    """Say whether this installation and this machine can do the work.

    Versions, how they fit each other, devices, memory, cache folders; and what to do about what is wrong. The exit
    code is 1 if there is a problem, 0 if all is well or could only be better. Nothing is downloaded.

    Example: `spgsurgeon doctor`
    """
    from spgsurgeon.commands.doctor import doctor

    with working("looking"):
        document = doctor()
    emit(document, _render)
    if document["exit_code"]:
        raise typer.Exit(document["exit_code"])


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    machine: list[tuple[str, object]] = [("python", f"{document['python']} on {document['platform']}")]
    machine += [(_device_name(device), _device(device)) for device in document["devices"]]
    machine += [(f"{cache['name']} cache", _cache(cache)) for cache in document["caches"]]
    machine += list(document["environment"].items())
    packages = [(p["name"], p["version"] or "-", p["required"] or "") for p in document["packages"]]
    checks = [(_status(check["status"]), check["name"], _finding(check)) for check in document["checks"]]
    return Group(
        columns(("package", "version", "needed"), packages),
        "",
        pairs(machine),
        "",
        columns(("status", "check", "finding"), checks),
        "",
        _verdict(document["checks"]),
    )


def _status(status: str) -> Any:
    return coloured(status, {"ok": GOOD, "problem": BAD}.get(status, OPEN))


def _device_name(device: dict[str, Any]) -> str:
    return f"cuda:{device['index']}" if device["type"] == "cuda" else str(device["type"])


def _device(device: dict[str, Any]) -> str:
    words = [device["name"]]
    if device["type"] == "cpu":
        words.append(f"{device['count']} of {device['total']} processors")
    if device.get("memory_total"):
        free = f"{gigabytes(device['memory_free'])} of " if device["memory_free"] is not None else ""
        words.append(f"{free}{gigabytes(device['memory_total'])} {'free' if free else 'memory'}")
    if device["type"] == "cuda":
        words += [f"capability {device['capability']}", "bfloat16" if device["bfloat16"] else "no bfloat16"]
    return ", ".join(words)


def _cache(cache: dict[str, Any]) -> str:
    size = f"{gigabytes(cache['size'])}{'' if cache['size_complete'] else ' or more'}"
    return f"{cache['path']}, {size if cache['exists'] else 'empty'}, {gigabytes(cache['free'])} free on its disk"


def _finding(check: dict[str, Any]) -> str:
    return f"{check['message']} -> {check['hint']}" if check["hint"] else str(check["message"])


def _verdict(checks: list[dict[str, Any]]) -> str:
    count = {status: sum(check["status"] == status for check in checks) for status in ("problem", "warning")}
    if not any(count.values()):
        return "all is well"
    return ", ".join(f"{number} {status}{'s' * (number > 1)}" for status, number in count.items() if number)
