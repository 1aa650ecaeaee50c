"""GeoJSON comes back as the same pixels, and says what QuPath reads."""

import json

import numpy as np
import pytest
from skimage import draw

from cellbundle.io.geojson import write_geojson

from .conftest import make


def read(path):
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["type"] == "FeatureCollection"
    return document["features"]


def polygons_of(feature):
    geometry = feature["geometry"]
    single = geometry["type"] == "Polygon"
    assert single or (geometry["type"] == "MultiPolygon" and len(geometry["coordinates"]) > 1)
    return [geometry["coordinates"]] if single else geometry["coordinates"]


def rasterise(features, shape):
    labels = np.zeros(shape, np.int32)
    for feature in features:
        mask = np.zeros(shape, bool)
        for exterior, *holes in polygons_of(feature):
            part = np.zeros(shape, bool)
            for ring in (exterior, *holes):
                x, y = np.array(ring).T - 0.5
                part[draw.polygon(y, x, shape)] = ring is exterior
            assert not (mask & part).any()
            mask |= part
        assert not labels[mask].any()
        labels[mask] = int(feature["properties"]["name"])
    return labels


def test_pixels_come_back(tmp_path, instances):
    write_geojson(tmp_path / "a.geojson", instances)
    features = read(tmp_path / "a.geojson")
    assert [feature["properties"]["name"] for feature in features] == list(map(str, instances.table["label"]))
    np.testing.assert_array_equal(rasterise(features, instances.labels.shape), instances.labels)
    assert len(list(tmp_path.iterdir())) == 1


def test_rings_are_closed_and_turn_as_rfc_7946_wants(tmp_path, instances):
    write_geojson(tmp_path / "a.geojson", instances)
    for feature in read(tmp_path / "a.geojson"):
        assert feature["type"] == "Feature"
        for rings in polygons_of(feature):
            for index, ring in enumerate(rings):
                assert ring[0] == ring[-1]
                assert len(ring) >= 5
                x, y = np.array(ring).T
                assert (np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0) == (index == 0)


def test_classes_and_measurements(tmp_path, scored):
    write_geojson(tmp_path / "a.geojson", scored, {"tumour": (200, 0, 0)})
    first, second, third, fourth = (feature["properties"] for feature in read(tmp_path / "a.geojson"))
    assert first == {
        "objectType": "detection",
        "name": "1",
        "classification": {"name": "tumour", "color": [200, 0, 0]},
        "measurements": {"score": 0.5, "area_px": 3, "round": 1.0},
    }
    assert "classification" not in second
    assert second["measurements"] == {"score": 1.0, "area_px": 2}
    assert third["classification"] == {"name": "immune", "color": [230, 159, 0]}
    assert third["measurements"] == {"area_px": 2, "round": 3.0}
    assert fourth["classification"] == first["classification"]


def test_no_measurements_without_numbers(tmp_path):
    write_geojson(tmp_path / "a.geojson", make([[1]]))
    assert read(tmp_path / "a.geojson")[0]["properties"] == {"objectType": "detection", "name": "1"}


def test_many_instances(tmp_path, many):
    write_geojson(tmp_path / "a.geojson", many)
    features = read(tmp_path / "a.geojson")
    assert len(features) == 75_625
    assert features[-1]["geometry"]["coordinates"][0][:3] == [[1096, 1096], [1099, 1096], [1099, 1099]]


def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_geojson(tmp_path / "a.geojson", scored)
    assert not list(tmp_path.iterdir())
