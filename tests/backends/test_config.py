"""Layered configuration."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lading.config import Settings, load
from lading.errors import Invalid


@pytest.fixture
def layers(tmp_path: Path) -> dict[str, Path]:
    """Vendor and admin files with a drop-in each of the same name."""
    vendor, admin = tmp_path / "vendor" / "lading.toml", tmp_path / "admin" / "lading.toml"
    for path in (vendor, admin):
        path.with_name("lading.toml.d").mkdir(parents=True)
    vendor.write_text('storage-driver = "vendor"\nmtu = 1400\n[network.x]\na = 1\nb = 1\n')
    vendor.with_name("lading.toml.d").joinpath("50-a.toml").write_text("icc = false\n")
    admin.write_text('storage-driver = "admin"\n[network.x]\nb = 2\n')
    return {"vendor": vendor, "config_file": admin}


def test_later_layers_win_key_by_key(layers: dict[str, Path]) -> None:
    loaded = load({"debug": True}, **layers)
    assert loaded.settings.storage_driver == "admin"
    assert (loaded.settings.mtu, loaded.settings.icc, loaded.settings.debug) == (1400, False, True)
    assert loaded.settings.network == {"x": {"a": 1, "b": 2}}
    assert loaded.origin["storage-driver"] == str(layers["config_file"])
    assert loaded.origin["mtu"] == str(layers["vendor"])
    assert loaded.origin["debug"] == "command line"


def test_an_admin_drop_in_hides_the_vendors(layers: dict[str, Path]) -> None:
    layers["config_file"].with_name("lading.toml.d").joinpath("50-a.toml").write_text("mtu = 9\n")
    loaded = load({}, **layers)
    assert (loaded.settings.icc, loaded.settings.mtu) == (True, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [("nosuch-key = 1", "nosuch-key"), ('mtu = "big"', "mtu"), ("mtu = ", "lading.toml")],
)
def test_mistakes_name_file_and_key(layers: dict[str, Path], text: str, said: str) -> None:
    layers["config_file"].write_text(text)
    with pytest.raises(Invalid, match=said) as caught:
        load({}, **layers)
    assert str(layers["config_file"]) in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        load({}, tmp_path / "none.toml")


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    keys = [field.encode_name for field in msgspec.structs.fields(Settings)]
    assert [key for key in keys if f"`{key}`" not in text] == []
