"""The generated page `docs/reference/python.md`, from the docstrings of the public Python API.

What is public: everything that `dpdau.client` lists, the verbs, and the nouns of `dpdau.domain`
that they take and give, found by their annotations.
"""

import dataclasses
import enum
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import dpdau.client
import dpdau.domain
from dpdau.app import App, Verbs

INTRODUCTION = (
    "What a program in Python calls: the clients of a service, the verbs that they share with the "
    "product in the same process, and the values that go in and come out.\n"
    "How to use them is in [the guide](../guides/client.md); errors are on "
    "[a page of their own](errors.md), and each is a class of `dpdau.errors`.\n"
    "Names that are not on this page may change with any version."
)
_SECTION = re.compile(
    r"(Args|Returns|Raises|Guarantee|Shapes and units|Edge cases|Source|Example):\s*(.*)"
)
_ENTRY = re.compile(r"^([A-Za-z_][\w, ]*):\s+(.*)")
_MODULE = re.compile(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Z]|date\b|datetime\b)")
_MEMBER = re.compile(r"<(\w+\.\w+): [^>]*>")
_FUNCTION = re.compile(r"<(?:built-in )?(?:function|method) (\w+)[^>]*>")
_QUOTE = re.compile("'")
LINE_MAX = 90


def python_page() -> str:
    """The clients, the verbs and the nouns."""
    verbs = _methods(Verbs)
    parts = ["# Python", INTRODUCTION, "## The clients: `dpdau.client`"]
    for name in sorted(dpdau.client.__all__):
        thing = getattr(dpdau.client, name)
        parts += _class(thing, but=set(verbs))
    parts += [
        "## The verbs",
        "The methods of `Client`, of `AsyncClient`, where they are awaited, and of "
        "`dpdau.app.App`, the product in this process: a caller cannot tell which of them it has.",
    ]
    for name, method in verbs.items():
        parts += [f"### `{name}`", _signature(name, method), *_prose(method)]
    parts += ["## The product in this process: `dpdau.app.App`", *_prose(App)]
    parts += ["### `App.open`", _signature("App.open", App.open), *_prose(App.open)]
    parts.append("## Values: `dpdau.domain`")
    for thing in _nouns(verbs.values()):
        parts += _class(thing, but={"to_json", "from_json"})
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _class(thing: Any, *, but: set[str]) -> Iterator[str]:
    """One class: how it is made, what it says of itself, and its methods."""
    yield f"### `{thing.__name__}`"
    if issubclass(thing, enum.Enum):
        yield from _prose(thing)
        yield "\n".join(f"- `{thing.__name__}.{one.name}`: `{one.value}`" for one in thing)
        return
    yield _signature(thing.__name__, thing)
    yield from _prose(thing)
    for name, method in _methods(thing).items():
        if name not in but:
            yield f"#### `{thing.__name__}.{name}`"
            if not isinstance(method, property):
                yield _signature(name, method)
            yield from _prose(method)


def _methods(thing: Any) -> dict[str, Any]:
    """The public methods and properties of a class itself, in the order of the source."""
    found = {}
    for name, member in vars(thing).items():
        raw = member.__func__ if isinstance(member, classmethod) else member
        if not name.startswith("_") and (inspect.isfunction(raw) or isinstance(raw, property)):
            found[name] = raw
    return found


def _signature(name: str, thing: Any) -> str:
    """How it is called, one parameter a line where it is long."""
    signature = inspect.signature(thing)
    parameters: list[str] = []
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        if one.name not in {"self", "cls"}:
            parameters.append(_plain(str(one)))
    result = _plain(inspect.formatannotation(signature.return_annotation))
    after = "" if inspect.isclass(thing) else f" -> {result}"
    shown = f"{name}({', '.join(parameters)}){after}"
    if len(shown) > LINE_MAX:
        shown = f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){after}"
    return f"```text\n{shown}\n```"


def _plain(annotated: str) -> str:
    """An annotation or a default without the modules that its names are from."""
    for pattern, by in ((_MEMBER, r"\1"), (_FUNCTION, r"\1"), (_MODULE, ""), (_QUOTE, "")):
        annotated = pattern.sub(by, annotated)
    return annotated


def _prose(thing: Any) -> Iterator[str]:
    """A docstring as Markdown, its sections with bold heads."""
    text = inspect.getdoc(thing)
    assert text, f"{thing} is public and says nothing"
    for block in re.split(r"\n\n(?=\S)", text):
        head, *rest = block.splitlines()
        found = _SECTION.fullmatch(head)
        if found is None:
            yield block
            continue
        title, first = found.groups()
        body = inspect.cleandoc("\n".join(rest))
        if title == "Example":
            yield f"**{title}**\n\n```text\n{body}\n```"
        elif first:
            yield f"**{title}:** {first}\n{body}"
        elif body.startswith("|"):
            yield f"**{title}**\n\n{body}"
        else:
            yield f"**{title}**\n\n{_entries(body)}"


def _entries(body: str) -> str:
    """`name: what it is` lines as a list; other text as it stands."""
    lines = []
    for line in body.splitlines():
        found = _ENTRY.match(line)
        lines.append(f"- `{found[1]}`: {found[2]}" if found else line.replace("    ", "  ", 1))
    return "\n".join(lines)


def _nouns(methods: Any) -> list[type]:
    """The classes of `dpdau.domain` that methods, or fields of such classes, are annotated with."""
    known = {getattr(dpdau.domain, name) for name in dpdau.domain.__all__}
    found: dict[type, None] = {}
    asked = [hint for method in methods for hint in typing.get_type_hints(method).values()]
    while asked:
        hint = asked.pop(0)
        asked += typing.get_args(hint)
        if isinstance(hint, type) and hint in known and hint not in found:
            found[hint] = None
            if dataclasses.is_dataclass(hint):
                asked += typing.get_type_hints(hint).values()
    return sorted(found, key=lambda one: one.__name__)
