"""The shape of the code: which way imports point, and that checkout, links and wheel hold the same packages."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("ingress", "processors", "sinks")

# Files (by their path in the package) that may import Faust and its service library.
FAUST = ("processors/app.py", "processors/agents.py", "processors/transports/")


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package, as its path inside `tollgate/` and where it lies; the links are followed by name."""
    for path in sorted((ROOT / "tollgate").rglob("*.py")):
        inside = path.relative_to(ROOT / "tollgate").as_posix()
        if not inside.startswith(STAGES):
            yield inside, path
    for stage in STAGES:
        for path in sorted((ROOT / stage).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path


def imports(inside: str, tree: ast.AST) -> Iterator[str]:
    """The dotted name of everything that is imported anywhere in a module; relative ones are made absolute."""
    package = ["tollgate", *inside.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer(inside: str) -> str:
    """`app`, a stage, `sandbox`, or `contract` for everything below them."""
    top = inside.split("/")[0]
    return top if top in (*STAGES, "app", "sandbox") else "contract"


def forbidden(inside: str, name: str) -> str | None:
    """Why a module may not import `name`, or None if it may."""
    parts = name.split(".")
    if parts[0] in STAGES:
        return f"import tollgate.{parts[0]}: a bare import loads a second copy"
    if parts[0] in ("faust", "mode") and not inside.startswith(FAUST):
        return "only processors/app.py, processors/agents.py and processors/transports import Faust"
    if parts[0] != "tollgate":
        return None
    here, there = layer(inside), layer("/".join(parts[1:]))
    if there == "app" and here != "app":
        return "app is the highest layer"
    if here == "sandbox" and there != "sandbox":
        return "the sandbox imports nothing else of ours, so that one mistake cannot sit on both sides"
    if there in STAGES and here not in ("app", there):
        return "only app imports the stages" if here == "contract" else "the stages meet only in the log"
    return None


MODULES = dict(sources())


@pytest.mark.parametrize("inside", MODULES)
def test_imports_point_one_way(inside):
    tree = ast.parse(MODULES[inside].read_bytes())

    wrong = {name: reason for name in imports(inside, tree) if (reason := forbidden(inside, name))}

    assert not wrong


@pytest.mark.parametrize(
    ("inside", "statement"),
    [
        ("ingress/routes.py", "import tollgate.processors.admit"),
        ("ingress/routes.py", "from tollgate.sinks import parquet"),
        ("ingress/routes.py", "from tollgate import sinks"),
        ("ingress/routes.py", "from ..sinks.parquet import write"),
        ("ingress/routes.py", "def late():\n    from tollgate.app import cli"),
        ("sinks/parquet.py", "import ingress"),
        ("sinks/parquet.py", "from processors.admit import decide"),
        ("sinks/parquet.py", "import faust"),
        ("processors/admit.py", "from mode import Service"),
        ("processors/agents2.py", "import faust.types"),
        ("money.py", "import tollgate.sinks"),
        ("log/kafka.py", "from ..processors import transports"),
        ("sandbox/app.py", "from tollgate.money import pusd"),
        ("sandbox/app.py", "from .. import events"),
        ("wire/openai.py", "from tollgate.app.settings import resolve"),
    ],
)
def test_an_import_the_other_way_is_found(inside, statement):
    assert [name for name in imports(inside, ast.parse(statement)) if forbidden(inside, name)]


@pytest.mark.parametrize(
    ("inside", "statement"),
    [
        ("app/serve.py", "from tollgate.processors.app import build"),
        ("ingress/routes.py", "from . import auth"),
        ("ingress/routes.py", "from tollgate.events import Ended"),
        ("processors/transports/kafka.py", "import faust"),
        ("processors/agents.py", "from faust import Stream"),
        ("processors/upstream/inprocess.py", "from tollgate.sandbox import create_app"),
        ("sandbox/app.py", "from .ledger import Ledger"),
        ("log/kafka.py", "from ..errors import LogError"),
    ],
)
def test_an_import_in_the_right_direction_is_not(inside, statement):
    assert not [name for name in imports(inside, ast.parse(statement)) if forbidden(inside, name)]


def test_modules_were_found_at_all():
    assert {layer(inside) for inside in MODULES} == {"app", "contract", "sandbox", *STAGES}


def build_targets() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]


def links() -> dict[str, Path]:
    return {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "tollgate").iterdir() if path.is_symlink()}


def test_every_link_is_relative_and_leads_to_what_the_wheel_puts_in_its_place():
    wheel = build_targets()["wheel"]

    assert {name: f"../{source}" for source, name in wheel["force-include"].items()} == {
        name: path.readlink().as_posix() for name, path in links().items()
    }
    assert all(path.exists() for path in links().values())


def test_no_link_is_packed_as_well_as_what_it_leads_to():
    targets = build_targets()

    assert set(targets["wheel"]["exclude"]) == set(targets["sdist"]["exclude"]) == set(links())


def test_a_stage_is_one_package_by_whatever_way_it_is_reached():
    import tollgate.ingress
    import tollgate.processors
    import tollgate.sinks

    for stage in (tollgate.ingress, tollgate.processors, tollgate.sinks):
        assert stage.__name__.startswith("tollgate.")
        assert Path(str(stage.__file__)).resolve().parent.parent == ROOT


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in MODULES.values()}

    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_holds_names_versions_and_hashes_and_not_where_they_came_from(lock):
    pin = re.compile(r"[a-z0-9.-]+==[^ ]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|\s*#.*")

    assert not [line for line in (ROOT / lock).read_text().splitlines() if not pin.fullmatch(line) or "://" in line]


def test_the_development_lock_pins_what_the_other_pins():
    def pins(lock: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / lock).read_text().splitlines() if line and line[0] not in " #"}

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
