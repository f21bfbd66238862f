"""A destination of somebody else's is found by its name, and whatever is wrong with it is said."""

from __future__ import annotations

import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest

from daemon import plugins
from daemon.plugins import PluginError, SettingsRefused
from publishers import testing
from publishers.plugin import Surroundings
from publishers.port import METRICS
from publishers.testing import JumpingClock

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "penstock-mastodon"
SECRET = "a-secret-of-the-operator"
GOOD = """
class Own:
    name = "own"
    public = False
    def intend(self, post): ...
    async def publish(self, intent, note): ...
    async def find(self, intent): ...
def made(surroundings):
    return Own()
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lays a distribution of one module where Python looks, as an installer does."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(
        code: str, *, name: str = "own", module: str = "own_of_theirs", value: str = "made"
    ) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        meta = tmp_path / f"{module}-0.1.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
        entry = f"[penstock.publishers]\n{name} = {module}:{value}\n"
        (meta / "entry_points.txt").write_text(entry)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return lay


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings(
        clock=JumpingClock(),
        timeout_s=20.0,
        state_dir=tmp_path,
        publication="Sluices",
        tls=ssl.create_default_context(),
        settings={"token": SECRET, "language": "en"},
    )


def refusal(name: str, around: Surroundings, kind: type[PluginError] = PluginError) -> str:
    """What is said of a plug-in that cannot be used; never a secret."""
    with pytest.raises(kind) as caught:
        plugins.made(name, around)
    assert caught.value.name == name
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    return str(caught.value)


# Found


def test_what_is_installed_is_listed_without_being_imported(install: Install) -> None:
    install("raise SystemExit('imported')")
    assert "own" in plugins.names()


def test_nothing_looks_for_plug_ins_before_one_is_asked_for() -> None:
    code = "import sys, daemon.plugins; sys.exit('importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_one_is_made_by_its_name(install: Install, around: Surroundings) -> None:
    install(GOOD)
    publisher = plugins.made("own", around)
    assert (publisher.name, publisher.public) == ("own", False)


def test_it_is_given_its_surroundings(install: Install, around: Surroundings) -> None:
    install(GOOD.replace("return Own()", "Own.given = surroundings; return Own()"))
    assert vars(type(plugins.made("own", around)))["given"] is around


@pytest.mark.parametrize("name", plugins.BUILT_IN)
def test_ours_are_not_overridden(name: str, install: Install, around: Surroundings) -> None:
    install(GOOD.replace('"own"', f'"{name}"'), name=name)
    assert name not in plugins.names()
    assert "is built in" in refusal(name, around)


def test_a_name_that_no_setting_can_have_is_not_listed(
    install: Install, around: Surroundings
) -> None:
    install(GOOD, name="Own-er")
    assert "Own-er" not in plugins.names()
    assert "a-z" in refusal("Own-er", around)


def test_settings_are_called_after_their_plug_in() -> None:
    assert plugins.prefix("own") == "PENSTOCK_PUBLISHER_OWN_"


def test_surroundings_do_not_show_the_settings(around: Surroundings) -> None:
    assert SECRET not in repr(around)
    assert SECRET not in repr(replace(around, timeout_s=1.0))


# What can be wrong


def test_one_that_is_not_installed_is_told_with_those_that_are(
    install: Install, around: Surroundings
) -> None:
    install(GOOD)
    told = refusal("mastodont", around)
    assert "not installed" in told
    assert sys.prefix in told
    assert "outbox, devto, bluesky, own" in told


def test_two_that_offer_one_name_are_both_named(install: Install, around: Surroundings) -> None:
    install(GOOD, module="one_of_theirs")
    install(GOOD, module="other_of_theirs")
    told = refusal("own", around)
    assert "one_of_theirs 0.1" in told
    assert "other_of_theirs 0.1" in told
    assert plugins.names().count("own") == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("def made(:", "SyntaxError"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("other = 1", "has no attribute 'made'"),
        ("made = 17", "is no callable"),
    ],
)
def test_one_that_cannot_be_imported_says_from_where(
    code: str, told: str, install: Install, around: Surroundings
) -> None:
    install(code)
    said = refusal("own", around)
    assert told in said
    assert "own_of_theirs:made (own_of_theirs 0.1)" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("return Own()", "return None"), "has no method intend; it has no method publish"),
        (("    async def find(self, intent): ...\n", ""), "has no method find"),
        (('"own"', '"other"'), "calls itself 'other'"),
        (('    name = "own"\n', ""), "has no name"),
        (("public = False", "public = 'no'"), "`public` is no bool"),
        (("public = False", "public = False; close = 1"), "`close` cannot be called"),
        (("return Own()", "raise KeyError(surroundings.settings['token'])"), "KeyError: '***'"),
        (
            ("return Own()", "raise KeyError(surroundings.settings['token'][::-1])"),
            "KeyError: '***'",
        ),
        (("return Own()", "return surroundings.settings['url']"), "KeyError: 'url'"),
        (("return Own()", "raise SystemExit(3)"), "SystemExit: 3"),
    ],
)
def test_what_is_made_is_looked_at(
    change: tuple[str, str], told: str, install: Install, around: Surroundings
) -> None:
    install(GOOD.replace(*change))
    assert told in refusal("own", around)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("'PENSTOCK_PUBLISHER_OWN_URL is missing'", "PENSTOCK_PUBLISHER_OWN_URL is missing"),
        ("'a URL is missing'", "PENSTOCK_PUBLISHER_OWN_*: a URL is missing"),
        ("", "PENSTOCK_PUBLISHER_OWN_*: it does not say why"),
        ("'what is ' + surroundings.settings['token']", "PENSTOCK_PUBLISHER_OWN_*: what is ***"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    raised: str, told: str, install: Install, around: Surroundings
) -> None:
    install(GOOD.replace("return Own()", f"raise ValueError({raised})"))
    assert refusal("own", around, SettingsRefused).endswith(f"cannot be set up: {told}")


# The example, installed as far as Python can tell


@pytest.fixture
def installed(install: Install) -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    ((name, value),) = project["entry-points"]["penstock.publishers"].items()
    module, _, attribute = value.partition(":")
    install((EXAMPLE / f"{module}.py").read_text("utf-8"),
            name=name, module=module, value=attribute)  # fmt: skip


@pytest.mark.usefixtures("installed")
def test_the_example_is_found_and_made(around: Surroundings) -> None:
    settings = {"url": "https://mastodon.example", "token": SECRET}
    assert "mastodon" in plugins.names()
    publisher = plugins.made("mastodon", replace(around, settings=settings))
    assert (publisher.name, publisher.public) == ("mastodon", True)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("settings", [{}, {"url": "x", "token": "y\n"}, {"tokne": "z"}])
def test_the_example_names_the_settings_it_lacks(
    settings: Mapping[str, str], around: Surroundings
) -> None:
    said = refusal("mastodon", replace(around, settings=settings), SettingsRefused)
    assert "PENSTOCK_PUBLISHER_MASTODON_URL" in said
    assert "PENSTOCK_PUBLISHER_MASTODON_TOKEN" in said


# The guide


def test_the_guide_tells_of_every_hook_field_and_metric() -> None:
    guide = (ROOT / "docs" / "publishers.md").read_text("utf-8")
    hooks = [name for name in vars(testing.Destination) if not name.startswith("_")]
    for name in (*hooks, *(field.name for field in fields(Surroundings)), *METRICS):
        assert f"`{name}`" in guide, name
