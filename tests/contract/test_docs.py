"""What the pages name is there: links, fields, values, commands, files, conditions."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from yolofleet.api import names
from yolofleet.api.crd import crd
from yolofleet.api.pod_template import MOST_KB, MOST_LEVELS
from yolofleet.api.status import ConditionType, Reason
from yolofleet.cli.__main__ import EDITS
from yolofleet.cluster import kinds
from yoloserve.http.app import CODE_OF
from yoloserve.http.replies import STATUS_OF
from yoloserve.quality.golden import MOST_BYTES, MOST_PICTURES
from yoloserve.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "dev/cluster/README.md",
    ROOT / "serving_image/yoloserve/bundled/MODEL_CARD.md",
]
FOLDERS = "charts|crds|dev|docs|examples|operator|requirements|serving_image|tests"
OF_CODE = {ROOT / "docs/map.md", *(ROOT / "docs/adr").glob("*.md")}
"""Pages in which `status.report` is a function."""

OPEN = re.compile(r"(spec\.)?(podTemplate\.(spec|metadata)|resources\.(limits|requests))\.")
"""What is below these is Kubernetes' own."""

OF_CHILDREN = {"spec.template", "spec.http"}
"""Fields of objects that a detector has, in the pages about drift."""

OF_OTHERS = {"model.revision", "model.predict"}
"""Of an answer of the server, and of the public package."""


def wrong(of_page: Callable[[Path], Iterable[str]], pages: Iterable[Path] = PAGES) -> list[str]:
    """Return what is wrong with any page, with the page."""
    return [f"{page.relative_to(ROOT)}: {each}" for page in pages for each in of_page(page)]


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the names of its headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Return where it leads to within the repository, with the anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def fields(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Return the paths of all fields below `schema`; those of a list's items without an index."""
    for name, below in schema.get("properties", {}).items():
        yield (inner := f"{path}.{name}" if path else name)
        yield from fields(below, inner)
        yield from fields(below.get("items", {}), inner)


def keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, below in values.items():
        yield (inner := f"{path}.{name}" if path else name)
        if isinstance(below, dict):
            yield from keys(below, inner)


FIELDS = set(fields(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def unknown_in(texts: Iterable[str]) -> Iterator[str]:
    """Return what is written as a field of a detector, and is none."""
    for text in texts:
        for name in re.findall(r"(?<![\w.{])(?:spec|status)\.[a-z][\w.\[\]]*", text):
            field = re.sub(r"\[.*?\]", "", name).rstrip(".")
            if field not in FIELDS | OF_CHILDREN and not OPEN.match(field):
                yield name


def test_a_link_leads_to_a_page_and_a_heading_that_are_there() -> None:
    def astray(page: Path) -> Iterator[str]:
        for target, anchor in links(page):
            if not target.exists() or (anchor and anchor not in anchors(target)):
                yield f"{target}#{anchor}"

    assert not wrong(astray)


def test_each_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = {README}, [README]
    while ahead:
        for target, _ in links(ahead.pop()):
            pages = set(target.glob("*.md")) if target.is_dir() else {target}
            ahead += [each for each in pages - reached if each.suffix == ".md"]
            reached |= pages
    assert not set(PAGES) - reached


def test_a_field_that_is_named_is_one_of_the_resource() -> None:
    assert not wrong(lambda page: unknown_in(quoted(page)), set(PAGES) - OF_CODE)


def test_a_field_that_a_message_a_value_or_an_example_names_is_one_of_the_resource() -> None:
    def in_strings(code: Path) -> Iterator[str]:
        text = code.read_text()
        for node in ast.walk(ast.parse(text)) if re.search(r"(spec|status)\.", text) else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value

    code = [*(ROOT / "operator").rglob("*.py"), *(ROOT / "serving_image/yoloserve").rglob("*.py")]
    texts = [*(ROOT / "charts").rglob("*.[yt]*"), *(ROOT / "examples").glob("*.yaml")]
    named = [each for path in code for each in in_strings(path)]
    named += [path.read_text() for path in texts]
    assert set(unknown_in(named)) <= {"spec.nodeName", "status.phase"}  # by which pods are listed


def test_a_value_or_a_part_of_a_field_that_is_named_is_there() -> None:
    values = yaml.safe_load((ROOT / "charts/yolofleet/values.yaml").read_text())
    parts = {
        ".".join(names[at:])
        for names in (field.split(".") for field in FIELDS)
        for at in range(len(names))
    }
    known = {*keys(values), *parts, *OF_OTHERS}
    tops = {*values, *(field.split(".")[1] for field in FIELDS if "." in field)}

    def unknown(page: Path) -> Iterator[str]:
        yield from set(re.findall(r"--set(?:-string)? ([\w.]+)", page.read_text())) - known
        for name in quoted(page):
            ours = re.fullmatch(r"(\w+)\.[\w.]+\w", name)
            if ours and ours[1] in tops and name not in known and not OPEN.match(name):
                yield name

    assert not wrong(unknown, set(PAGES) - OF_CODE)


def test_a_command_that_is_named_is_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    plugin = {*EDITS, "get", "explain", "dashboard", "abort", "rollback"}

    def is_module(name: str) -> bool:
        places = (ROOT / root / name.replace(".", "/") for root in ("dev", "serving_image"))
        return any(each.is_dir() or each.with_suffix(".py").exists() for each in places)

    def unknown(page: Path) -> Iterator[str]:
        text = page.read_text()
        made = re.findall(r"(?:`|^\$? ?)make ([a-z][a-z-]*)", text, re.MULTILINE)
        yield from set(made) - set(targets)
        yield from set(re.findall(r"(?:`|^\$? ?)kubectl yd ([a-z]+)", text, re.MULTILINE)) - plugin
        modules = set(re.findall(r"python3? -m ([a-z_][\w.]*\w)", text)) - {"pytest"}
        yield from (name for name in modules if not is_module(name))

    assert not wrong(unknown)


def test_a_label_or_an_annotation_that_is_named_is_ours() -> None:
    ours = {each for each in vars(names).values() if isinstance(each, str)}
    assert not wrong(
        lambda page: set(re.findall(r"\byolofleet\.io/[a-z0-9-]+", page.read_text())) - ours
    )


def test_a_variable_that_is_named_is_read_by_somebody() -> None:
    read = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    roots = ("operator/yolofleet", "dev", "tests/conftest.py", "tests/faults")
    files = (each for root in roots for each in [ROOT / root, *(ROOT / root).rglob("*.py")])
    code = "\n".join(each.read_text() for each in files if each.is_file())

    def unread(page: Path) -> Iterator[str]:
        for name in set(
            re.findall(r"\bYOLO(?:SERVE|FLEET|STUB)_[A-Z0-9_]*[A-Z0-9]", page.read_text())
        ):
            if name not in read and name not in code and f'"{name.partition("_")[2]}"' not in code:
                yield name

    assert not wrong(unread)


def test_a_file_or_a_test_that_is_named_is_there() -> None:
    tests = "\n".join(each.read_text() for each in (ROOT / "tests").rglob("test_*.py"))

    def lost(page: Path) -> Iterator[str]:
        for words in quoted(page):
            if re.fullmatch(rf"(?:{FOLDERS})/[\w./*-]+", words) and "VERSION" not in words:
                if not any(ROOT.glob(words.rstrip("/"))):
                    yield words
            elif (named := re.fullmatch(r"(test_\w+)…?", words)) and f"def {named[1]}" not in tests:
                yield words

    assert not wrong(lost)


def test_each_condition_and_each_reason_is_in_a_guide() -> None:
    told = "\n".join(page.read_text() for page in (ROOT / "docs/guides").glob("*.md"))
    words = {each.value for each in (*ConditionType, *Reason)}
    assert not {each for each in words if not re.search(rf"\b{each}\b", told)}


def test_the_page_of_objects_has_each_kind_of_child() -> None:
    table = (ROOT / "docs/guides/objects.md").read_text().partition("## The network")[0]
    children = {each.name for each in kinds.CHILDREN}
    assert not {each for each in children if each not in table}


def test_the_guide_has_each_refusal_of_the_server_with_its_status() -> None:
    guide = (ROOT / "docs/guides/serving.md").read_text()
    table = guide.partition("## When it refuses")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", table, re.MULTILINE)
    told = {
        (int(status), code)
        for statuses, codes in rows
        for status in statuses.split(", ")
        for code in re.findall(r"`(\w+)`", codes)
    }
    refused = {(status, kind.code) for kind, status in STATUS_OF.items()}
    assert refused | {(500, "internal"), *CODE_OF.items()} <= told


def test_the_limits_that_pages_name_are_those_that_hold() -> None:
    pictures = f"at most {MOST_PICTURES:,} pictures and {MOST_BYTES >> 20} MiB"
    template = f"at most {MOST_KB} kB as JSON, nested in at most {MOST_LEVELS} levels"
    pages = {
        "reference/yolodetector.md": (pictures, template),
        "guides/serving.md": (pictures,),
        "guides/objects.md": (template,),
    }
    for page, limits in pages.items():
        told = " ".join((ROOT / "docs" / page).read_text().split()).lower()
        assert not [each for each in limits if each.lower() not in told], page


def test_nobody_is_told_to_install_us_from_an_index() -> None:
    """The name there may be anybody's: nobody publishes this project."""
    assert not wrong(
        lambda page: re.findall(r"pip install [^\n]*['\" ]yolofleet", page.read_text())
    )
