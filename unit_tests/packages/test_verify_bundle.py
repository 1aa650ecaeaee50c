"""scripts/verify_bundle.py: every bundle passes, and what the Model Zoo would refuse is found."""

import json

import pytest
from unit_tests.packages.packaging import BUNDLES, ROOT, verify_bundle, write_files


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_passes(name):
    results = list(verify_bundle.verify(name))
    excluded = verify_bundle.read_metadata(ROOT / "bundles" / name).get("excluded_checks", {})
    assert [result for result in results if result.status == "FAILED"] == []
    for form in ("folder", "archive"):
        found = {result.check: result.status for result in results if result.form == form}
        assert {check for check, status in found.items() if status == "excluded"} == set(excluded)
        assert len(found) == 18


@pytest.fixture
def bundle(tmp_path):
    return verify_bundle.copy_folder(ROOT / "bundles" / "cell_unet", tmp_path / "cell_unet")


def failures(bundle, monkeypatch, change):
    """What fails, without the checks that need a process, after a change of the metadata."""
    monkeypatch.setattr(verify_bundle, "run_checks", lambda *_: iter(()))
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    found = verify_bundle.verify_folder(bundle, None, bundle)
    return {check: detail for check, status, detail in found if status == "FAILED"}


def test_a_good_folder_passes(bundle, monkeypatch):
    assert failures(bundle, monkeypatch, lambda metadata: None) == {}


@pytest.mark.parametrize(
    ("change", "check", "word"),
    [
        (lambda m: m.pop("task"), "schema and keys", "task"),
        (lambda m: m.update(authors=3), "schema and keys", "authors"),
        (lambda m: m.pop("intended_use"), "schema and keys", "intended_use"),
        (lambda m: m.pop("changelog"), "version and changelog", "changelog"),
        (lambda m: m.pop("required_packages_version"), "exact versions", "required_packages_version"),
        (lambda m: m.update(excluded_checks={"weigths": "a typo"}), "weigths", "unknown check"),
        (lambda m: m.update(version="9.9.9"), "version and changelog", "9.9.9"),
        (lambda m: m.update(name="other"), "version and changelog", "other"),
        (lambda m: m["required_packages_version"].update(numba=">=0.6"), "exact versions", "numba >=0.6"),
        (lambda m: m["network_data_format"]["outputs"].pop("pred"), "network_data_format", "outputs.pred"),
        (lambda m: m["network_data_format"]["inputs"]["image"].pop("dtype"), "network_data_format", "dtype"),
    ],
)
def test_wrong_metadata(bundle, monkeypatch, change, check, word):
    found = failures(bundle, monkeypatch, change)
    assert word in found[check]


@pytest.mark.parametrize(
    ("files", "check", "word"),
    [
        ({"docs/README.md": "see [a page](missing.md#part)"}, "links of Markdown pages", "missing.md"),
        ({"docs/README.md": "see [a page](../../../docs/nowhere.md)"}, "links of Markdown pages", "nowhere.md"),
        ({"docs/big.png": bytes(26_000_000)}, "sizes", "docs/big.png 26 MB"),
        ({"large_files.yml": "large_files: [{path: models/a.pt}]"}, "large_files.yml", "expected"),
    ],
)
def test_wrong_files(bundle, monkeypatch, files, check, word):
    write_files(bundle, files)
    assert word in failures(bundle, monkeypatch, lambda metadata: None)[check]


@pytest.mark.parametrize(
    ("path", "url"), [("../a.pt", "https://x/a"), ("/a.pt", "https://x/a"), ("a.pt", "http://x/a")]
)
def test_large_files_stay_inside_and_come_safely(bundle, monkeypatch, path, url):
    entry = {"path": path, "url": url, "hash_val": "0", "hash_type": "md5"}
    write_files(bundle, {"large_files.yml": json.dumps({"large_files": [entry]})})
    assert "large_files.yml" in failures(bundle, monkeypatch, lambda metadata: None)


@pytest.mark.parametrize("name", ["configs/metadata.json", "large_files.yml"])
def test_a_missing_file_does_not_end_the_checks(bundle, monkeypatch, name):
    monkeypatch.setattr(verify_bundle, "run_checks", lambda *_: iter(()))
    (bundle / name).unlink()
    found = {check: status for check, status, _ in verify_bundle.verify_folder(bundle, None, bundle)}
    assert "FAILED" in found.values()
    assert found["sizes"] == "ok"


def test_missing_weights_are_an_error_unless_they_are_excluded(bundle, monkeypatch):
    (bundle / "models" / "model.pt").unlink()
    assert "model.pt" in failures(bundle, monkeypatch, lambda metadata: None)["weights"]
    reason = {"weights": "none yet"}
    assert failures(bundle, monkeypatch, lambda metadata: metadata.update(excluded_checks=reason)) == {}


@pytest.mark.parametrize(("arguments", "word"), [(["nothing"], "nothing"), ([], "no bundle is given")])
def test_wrong_usage(capsys, arguments, word):
    with pytest.raises(SystemExit) as stopped:
        verify_bundle.main(arguments)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err
