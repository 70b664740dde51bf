"""Writes docs/reference from the code: the flags of every job, and the fields of an experiment.

    python docs/make_reference.py

Flags and their words come from the same classes as `--help`, so a page cannot say what a job does not. A test compares
what is committed with what this script makes.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
GENERATED = "<!-- Made by docs/make_reference.py. Change the code, and run it again. -->\n"

JOBS_PAGE = """# Jobs and their flags

Run a job as `.venv/bin/python jobs/NAME.py`, or on a cluster as `ray job submit --working-dir . -- python
jobs/NAME.py`. Every job has `--help`, which says the same. Exit status: 0 all is done, 1 some trial failed, 2 the
request or the data is wrong, 130 interrupted, 143 ended by SIGTERM.
"""

EXPERIMENT_PAGE = """# Fields of an experiment

An experiment is everything that decides the result of one trial: `ccim_ray.experiment.Experiment`. Flags and presets
fill it in, `experiment.json` in a trial's folder holds it, and MLflow shows it as parameters with dotted names. A field
that does not exist, or a value out of range, is an error. In a search space of your own, a nested field is written with
two underscores, as in `dictionary__size`.
"""


def docs_of_fields(cls: type) -> dict[str, str]:
    """The string after each field in the class body, on one line."""
    [body] = [
        node for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body if isinstance(node, ast.ClassDef)
    ]
    found = {}
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            found[field.target.id] = " ".join(after.value.value.split()).replace("``", "`") if told else ""  # type: ignore[union-attr]
    return found


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(("---",) * len(header)), *(line(row) for row in rows)]) + "\n"


def job_modules() -> Iterator[tuple[str, ModuleType]]:
    for path in sorted((ROOT / "jobs").glob("[!_]*.py")):
        spec = importlib.util.spec_from_file_location(f"job_{path.stem}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up by name while they are made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield path.stem, module


def flags_of(module: ModuleType) -> type:
    """The class that the job hands to ``parse``."""
    found = re.search(r"\bparse\((\w+)", inspect.getsource(module))
    assert found, f"{module.__file__} parses no flags"
    flags: type = getattr(module, found[1])
    return flags


def words_of_flag(annotation: Any, default: Any) -> tuple[str, str] | None:
    """Its metavar and its default as ``--help`` has them; None for a flag that is hidden."""
    plain, metavar, hint = annotation, "", None
    if typing.get_origin(annotation) is typing.Annotated:
        plain, *markers = typing.get_args(annotation)
        for marker in markers:
            if str(marker).endswith("Suppress") or getattr(marker, "name", "") == "Suppress":
                return None
            metavar = getattr(marker, "metavar", None) or metavar
            if getattr(marker, "help_behavior_hint", None) is not None:
                hint = marker.help_behavior_hint
    if plain is bool and default is False:
        return "", ""
    names = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH", bool: "True or False"}
    metavar = metavar or names.get(plain, "")
    if hint is not None:
        return metavar, hint.removeprefix("(default: ").removesuffix(")")
    if default is dataclasses.MISSING:
        return metavar, "required"
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return metavar, f"`{shown}`" if default is not None and shown else ""


def flag_table(cls: type) -> str:
    """The flags that this class itself declares."""
    hints, docs = typing.get_type_hints(cls, include_extras=True), docs_of_fields(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    rows = []
    for name, doc in docs.items():
        words = words_of_flag(hints[name], defaults[name])
        if words is None:
            continue
        positional = "Positional" in str(hints[name])
        flag = words[0] if positional else f"--{name.replace('_', '-')} {words[0]}".strip()
        rows.append((f"`{flag}`", doc, words[1]))
    return table(("flag", "what", "default"), rows) if rows else ""


def hidden_flags(cls: type) -> list[str]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return [f"`--{name.replace('_', '-')}`" for name in hints if words_of_flag(hints[name], None) is None]


def lineage(cls: type) -> list[type]:
    return [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]


def anchor(text: str) -> str:
    return re.sub(r"[^\w-]", "", text.lower().replace(" ", "-"))


def heading_of(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def jobs_page() -> str:
    jobs = {name: (module, flags_of(module)) for name, module in job_modules()}
    of_modules = [flags for _, flags in jobs.values()]
    shared: list[type] = []
    for flags in of_modules:
        shared += [cls for cls in lineage(flags) if cls.__module__.startswith("ccim_ray.") and cls not in shared]
    parts = [JOBS_PAGE]
    for name, (module, flags) in jobs.items():
        paragraphs = re.split(r"\n\s*\n", (module.__doc__ or "").strip())
        own = "" if flags in shared else flag_table(flags)
        links = [f"[{heading_of(cls)}](#{anchor(heading_of(cls))})" for cls in lineage(flags) if cls in shared]
        parts.append(f"## {name}.py\n\n{' '.join(paragraphs[0].split())}\n")
        parts += [own] if own else []
        if links:
            hidden = hidden_flags(flags)
            without = f" Of these it does not have {', '.join(hidden)}." if hidden else ""
            parts.append(("Also: " if own else "Flags: ") + ", ".join(links) + f".{without}\n")
    for cls in shared:
        parts.append(f"## {heading_of(cls)}\n\n{flag_table(cls)}")
    return GENERATED + "\n".join(parts)


def type_words(annotation: Any) -> str:
    text = re.sub(r"ccim_ray\.[\w.]+\.", "", str(annotation).replace("typing.", ""))
    choices = re.search(r"Literal\[([^\]]*)\]", text)
    if choices:
        rest = text.replace(choices[0], choices[1].replace("'", "").replace(",", " or"))
        return rest.replace(" | None", ", or none")
    return re.sub(r"<class '([\w.]+)'>", lambda found: found[1].rpartition(".")[2], text)


def field_table(cls: type[BaseModel]) -> str:
    docs, rows = docs_of_fields(cls), []
    for name, field in cls.model_fields.items():
        rules = " ".join(str(rule) for rule in field.metadata)
        limits = [
            f"{sign} {found[1]}" for word, sign in SIGNS.items() if (found := re.search(rf"{word}=([\w.]+)", rules))
        ]
        default = "required" if field.is_required() else default_words(field.get_default(call_default_factory=True))
        rows.append((f"`{name}`", ", ".join([type_words(field.annotation), *limits]), default, docs.get(name, "")))
    return table(("field", "type", "default", "what"), rows)


SIGNS = {"ge": "≥", "gt": ">", "le": "≤"}


def default_words(default: Any) -> str:
    return "see below" if isinstance(default, BaseModel) else f"`{default}`"


def experiment_page() -> str:
    from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
    from ccim_ray.experiment import BackboneSettings, CcimSettings, DictionarySettings, Experiment
    from ccim_ray.presets import PRESETS, preset

    parts = [EXPERIMENT_PAGE]
    for name, cls in {
        "Experiment": Experiment,
        "world": WorldSettings,
        "backbone, and each of trunks": BackboneSettings,
        "ccim": CcimSettings,
        "dictionary": DictionarySettings,
    }.items():
        parts.append(f"## {name}\n\n{(cls.__doc__ or '').strip()}\n\n{field_table(cls)}")
    rows = []
    for name in PRESETS:
        values = dataclasses.asdict(preset(name))
        rows.append((f"`{name}`", *(words_of_value(value) for value in values.values())))
    header = ("preset", *(name.replace("_", " ") for name in dataclasses.asdict(preset("smoke"))))
    parts.append(f"## Presets\n\n{table(header, rows)}")
    parts.append(
        "Pictures are the embedded world's. Jobs that compare several baselines take fewer pictures and epochs in"
        " `quick`.\nOn real datasets, the preset `paper` trains end to end with each baseline's own settings.\n"
    )
    return GENERATED + "\n".join(parts)


def words_of_value(value: Any) -> str:
    return "all" if value is None else " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"


def pages() -> dict[str, str]:
    """Text by file name."""
    return {"jobs.md": jobs_page(), "experiment.md": experiment_page()}


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
        print(REFERENCE / name)


if __name__ == "__main__":
    main()
