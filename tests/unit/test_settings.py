"""Flag > environment > file > default; a wrong key says so."""

import pytest

from headrace.settings import SettingsError, load

TOML = """
[house]
name = "t"
[gateway]
listen = "127.0.0.1:9000"
[models.sum]
class = "models:Sum"
slots = 2
devices = ["cuda:0", "cuda:1"]
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "headrace.toml"
    path.write_text(TOML)
    return path


def test_file_over_default(path):
    settings = load(path, environment={})
    assert settings.gateway.listen == "127.0.0.1:9000"
    assert settings.gateway.default_deadline_ms == 30_000
    assert settings.models["sum"].target == "models:Sum"
    assert settings.models["sum"].devices == ("cuda:0", "cuda:1")
    assert settings.folder == str(path.parent)


def test_environment_over_file_and_flag_over_both(path):
    environment = {"HEADRACE_GATEWAY__LISTEN": "0.0.0.0:80", "HEADRACE_GATEWAY__COUNT": "3",
                   "HEADRACE_URL": "not a setting"}  # fmt: skip
    settings = load(path, environment=environment)
    assert settings.gateway.listen == "0.0.0.0:80"
    assert settings.gateway.count == 3
    settings = load(path, environment=environment, flags={"gateway.listen": "127.0.0.1:1"})
    assert settings.gateway.listen == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[gateway]\nlisten_on = 1", ["gateway", "listen_on", "expected one of", "listen"]),
        ("[gatway]\nlisten = 'a:1'", ["gatway", "expected one of", "gateway"]),
        ("[gateway]\nlisten = 'nowhere'", ["gateway.listen = 'nowhere'"]),
        ("[gateway]\nlisten = 'a:65536'", ["gateway.listen = 'a:65536'", "host:port"]),
        ("[gateway]\ncount = 0", ["gateway.count = 0", ">= 1"]),
        ("[models.Bad_Name]\nclass = 'a:B'", ["models"]),
        ("[models.a]\nclass = 'a.py'", ["class", "a.py"]),
        ("[models.a]\nslots = 1", ["class"]),
        ("folder = '/'", ["folder"]),
        (
            "[models.a]\nclass = 'a:B'\n[models.a.scale.target]\nslo_s = 1\nservice_p95_s = 1.2",
            ["models.a.scale", "service_p95_s 1.2", "of slo_s 1", "no number of nodes"],
        ),
        (
            "[models.a]\nclass = 'a:B'\n[models.a.scale]\nleast = 3\nmost = 2",
            ["models.a.scale", "least 3 is more than most 2"],
        ),
        ("not toml", ["not TOML"]),
    ],
)
def test_a_wrong_setting_names_key_value_and_what_was_expected(tmp_path, text, parts):
    path = tmp_path / "h.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load(path, environment={})
    for part in parts:
        assert part in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        load(tmp_path / "none.toml", environment={})


def test_the_default_objects_are_in_memory(path):
    assert load(path, environment={}).transit_url().startswith("file://")
