"""What `headrace registry` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.cli.table import escaped, moment, table_of
from headrace.cli.told import console, plural

if TYPE_CHECKING:
    from headrace.registry.audit import Entry
    from headrace.registry.port import State
    from headrace.registry.version import Version

COLOURS = {"done": "green", "failed": "red", "asked": "yellow"}


def show_models(state: State) -> None:
    out = console()
    if not state:
        out.print("no models yet: headrace registry register FOLDER")
        return
    table = table_of("model", "production", "canary", "others")
    for model, aliases in sorted(state.items()):
        others = {a: n for a, n in aliases.items() if a not in ("production", "canary")}
        table.add_row(
            model,
            str(aliases.get("production", "-")),
            str(aliases.get("canary", "-")),
            ", ".join(f"{alias} {number}" for alias, number in sorted(others.items())),
        )
    out.print(table)


def show_versions(model: str, versions: list[Version], aliases: dict[str, int]) -> None:
    out = console()
    if not versions:
        out.print(f"no versions of {model}", markup=False)
        return
    table = table_of("version", "is", "format", "size", "made", "metrics", "commit", "digest")
    for version in versions:
        manifest = version.manifest
        table.add_row(
            str(version.number),
            ", ".join(_names(version, aliases)),
            manifest.format,
            size(version.bytes),
            moment(version.created),
            escaped(figures(manifest.metrics)),
            escaped(manifest.commit[:10]),
            version.digest[7:19],
        )
    out.print(table)


def show_version(version: Version, aliases: dict[str, int]) -> None:
    out, manifest = console(), version.manifest
    names = _names(version, aliases)
    out.print(
        f"[bold]{version.model} {version.number}[/]" + (f"  {', '.join(names)}" * bool(names))
    )
    facts = (
        ("digest", version.digest), ("format", manifest.format), ("class", manifest.target),
        ("made", moment(version.created)), ("run", manifest.run), ("commit", manifest.commit),
        ("metrics", figures(manifest.metrics)), ("profile", figures(manifest.profile)),
        ("golden", plural(len(manifest.golden), "call") if manifest.golden else ""),
        ("tags", ", ".join(f"{key}={value}" for key, value in sorted(manifest.tags.items()))),
        ("says", manifest.card.description.partition("\n")[0] if manifest.card else ""),
    )  # fmt: skip
    for name, text in facts:
        if text:
            out.print(f"  {name:<8} {text}", markup=False, soft_wrap=True)
    out.print(f"\n{plural(len(version.files), 'file')}, {size(version.bytes)}")
    for file in version.files:
        out.print(f"  {file.sha256[:12]}  {size(file.bytes):>9}  {file.path}", markup=False)


def show_log(entries: list[Entry]) -> None:
    out = console()
    if not entries:
        out.print("nothing was promoted yet")
        return
    table = table_of("when", "model", "alias", "from", "to", "who", "why", "")
    for entry in entries:
        state = "interrupted" if entry.outcome == "asked" else entry.outcome
        table.add_row(
            moment(entry.at),
            entry.model,
            entry.alias,
            str(entry.before or "-"),
            str(entry.to or "-"),
            escaped(entry.author),
            escaped(entry.reason),
            f"[{COLOURS[entry.outcome]}]{state}[/] {escaped(entry.detail)}",
        )
    out.print(table)


def outcomes(entries: list[Entry]) -> list[Entry]:
    """One of each promotion: what came of it, where that is known. The newest first."""
    ended = {entry.id for entry in entries if entry.outcome != "asked"}
    return [entry for entry in entries if entry.outcome != "asked" or entry.id not in ended]


def plain(version: Version, aliases: dict[str, int]) -> dict[str, Any]:
    import msgspec

    files = [file._asdict() for file in version.files]
    fields: dict[str, Any] = msgspec.to_builtins(version)
    return fields | {"files": files, "bytes": version.bytes, "aliases": _names(version, aliases)}


def figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def size(count: int) -> str:
    """ "812 B", "3.1 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _names(version: Version, aliases: dict[str, int]) -> list[str]:
    return sorted(alias for alias, number in aliases.items() if number == version.number)
