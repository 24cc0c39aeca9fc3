"""Settings: defaults, wrong values, documentation."""

import importlib.util
from pathlib import Path

import pytest

from ff_cloud.errors import SettingsInvalid
from ff_cloud.settings import CloudSettings, load_settings, variable

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "reference" / "settings.md"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in CloudSettings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_new_machine_needs_no_settings():
    settings = load_settings()
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8420, None)
    assert settings.body_bytes_max == 1024 * 1024
    assert settings.data_dir.is_absolute()


def test_the_environment_is_read_and_a_flag_wins(monkeypatch):
    monkeypatch.setenv("FF_PORT", "9000")
    monkeypatch.setenv("FF_VM_VOLUME_OPTIONS", '{"size": "20G"}')
    monkeypatch.setenv("FF_SIGNUP_OPEN", "")  # empty means unset
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.host, settings.signup_open) == (9001, "127.0.0.1", True)
    assert settings.vm_volume_options == {"size": "20G"}


@pytest.mark.parametrize(
    ("own", "common", "used"),
    [("sk-own", "sk-common", "sk-own"), (None, "sk-common", "sk-common"), ("", "sk-common", "sk-common")],
)
def test_the_model_key_falls_back_to_the_common_variable(monkeypatch, own, common, used):
    if own is not None:
        monkeypatch.setenv("FF_MODEL_API_KEY", own)
    monkeypatch.setenv("ANTHROPIC_API_KEY", common)
    assert load_settings().model_api_key.get_secret_value() == used


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FF_PORT", "99999"),
        ("FF_PORT", "http"),
        ("FF_DATABASE_URL", "mysql://me:hunter2hunter2@db/x"),
        ("FF_DATABASE_URL", "hunter2hunter2"),
        ("FF_SECRET_KEY", "hunter2hunter2"),
        ("FF_VM_VOLUME_OPTIONS", "hunter2hunter2"),
        ("FF_VM_VOLUME_OPTIONS", '{"size": 3}'),
        ("FF_MODEL_BASE_URL", "ftp://hunter2hunter2"),
        ("FF_DEPLOYMENT", "Not A Label"),
        ("FF_SIGNUP_OPEN", "perhaps"),
        ("FF_VM_EGRESS", "sometimes"),
        ("FF_VM_EGRESS_ALLOW", "10.1.0.0/16,hunter2hunter2"),
        ("FF_VM_EGRESS_ALLOW", "10.1.2.3:99999"),
        ("FF_VM_EGRESS_ALLOW", "10.1.2.3/16"),
        ("FF_VM_RUNTIME", "/bin/sh -c hunter2hunter2"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting_and_not_the_value(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as raised:
        load_settings()
    assert name in raised.value.detail
    assert "\n" not in raised.value.detail
    assert "hunter2" not in raised.value.detail
    assert raised.value.__cause__ is None


def test_what_vms_may_reach_is_a_list(monkeypatch):
    monkeypatch.setenv("FF_VM_EGRESS_ALLOW", " 10.1.0.0/16, 10.2.3.4:8080 ,")
    assert load_settings().vm_egress_allow == ("10.1.0.0/16", "10.2.3.4:8080")
    assert load_settings(vm_egress_allow=()).vm_egress_allow == ()


def test_secrets_do_not_show(monkeypatch):
    monkeypatch.setenv("FF_DATABASE_URL", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("FF_MODEL_API_KEY", "hunter2")
    monkeypatch.setenv("FF_SECRET_KEY", "hunter2" * 10)
    settings = load_settings()
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_the_deployment_name_is_one_per_database_and_knows_no_password(tmp_path):
    def name(**settings):
        return load_settings(**settings).deployment_name

    here = name(database_url="postgresql://a:one@db/x", data_dir=tmp_path)
    assert here == name(database_url="postgresql+psycopg://b:two@db:5432/x", data_dir=tmp_path / "other")
    assert here != name(database_url="postgresql://a:one@db/y")
    assert name(data_dir=tmp_path) == name(data_dir=tmp_path / "x" / "..")
    assert name(data_dir=tmp_path) != name(data_dir=tmp_path / "other")
    assert name(deployment="blue") == "blue"


@pytest.mark.parametrize("field", CloudSettings.model_fields)
def test_every_setting_is_documented(field):
    assert CloudSettings.model_fields[field].description
    assert f"`{variable(field)}`" in PAGE.read_text()


def test_the_settings_page_is_what_the_script_writes():
    spec = importlib.util.spec_from_file_location("settings_docs", ROOT / "scripts" / "settings_docs.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert PAGE.read_text() == script.render(), "run scripts/settings_docs.py"
