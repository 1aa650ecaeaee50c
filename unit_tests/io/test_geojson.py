"""GeoJSON comes back as the same pixels, and says what QuPath reads; what QuPath writes is read."""

import json

import numpy as np
import pytest
from skimage import draw

from cellbundle.errors import ConfigError, LabelReadError
from cellbundle.instances.painting import paint_rings
from cellbundle.io.formats.geojson import read_geojson, write_geojson

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


BOX = [[1, 0], [3, 0], [3, 2], [1, 2], [1, 0]]  # x 1 to 3, y 0 to 2
RING = [[[0, 0], [0, 3], [4, 3], [4, 0], [0, 0]], [[1, 1], [3, 1], [3, 2], [1, 2], [1, 1]]]


def feature(coordinates, kind="Polygon", others=(), **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **dict(others)}


def save(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def painted(features, shape):
    return paint_rings([feature.rings for feature in features], shape)


def test_classes_are_read(tmp_path, scored):
    write_geojson(tmp_path / "a.geojson", scored)
    features = read_geojson(tmp_path / "a.geojson")
    assert [feature.classification for feature in features] == ["tumour", None, "immune", "tumour"]
    assert {feature.object_type for feature in features} == {"detection"}


@pytest.mark.parametrize("wrap", [lambda *f: {"type": "FeatureCollection", "features": f}, lambda *f: f])
def test_masks_by_hand(tmp_path, wrap):
    parts = feature([[BOX], [[[3, 2], [4, 2.6], [3, 3], [3, 2]]]], "MultiPolygon", objectType="annotation", name="x")
    features = read_geojson(save(tmp_path / "a.json", wrap(feature(RING), parts)))
    assert [f.object_type for f in features] == [None, "annotation"]
    assert [f.name for f in features] == [None, "x"]
    assert [[ring.dtype for ring in f.rings] for f in features] == [[np.float64] * 2] * 2
    result = painted(features, (3, 4))
    np.testing.assert_array_equal(result.labels, [[1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 2]])
    assert result.lost == []


def test_one_feature_and_no_features(tmp_path):
    (one,) = read_geojson(save(tmp_path / "a.json", feature([BOX])))
    np.testing.assert_array_equal(painted([one], (2, 3)).labels, [[0, 1, 1], [0, 1, 1]])
    assert read_geojson(save(tmp_path / "a.json", {"type": "FeatureCollection", "features": []})) == []


def test_nan_in_measurements_and_a_third_coordinate_do_no_harm(tmp_path):
    high = [[x, y, 5] for x, y in BOX]
    (one,) = read_geojson(save(tmp_path / "a.json", feature([high], measurements={"Area": float("nan")})))
    np.testing.assert_array_equal(one.rings, [BOX])


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),  # before QuPath 0.4
        ({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}, "Tumor: Positive"),
        (
            {"name": "Positive", "parentClass": {"name": "Tumor", "colorRGB": -3670016}, "colorRGB": -1},
            "Tumor: Positive",
        ),
        ("Tumor", "Tumor"),
        ({}, None),
        (None, None),
    ],
)
def test_all_forms_of_a_class(tmp_path, classification, name):
    (one,) = read_geojson(save(tmp_path / "a.json", [feature([BOX], classification=classification)]))
    assert one.classification == name


def test_nuclei_of_cells(tmp_path):
    nucleus = {"nucleusGeometry": {"type": "Polygon", "coordinates": [BOX]}}
    cell = feature([RING[0]], others=nucleus, objectType="cell")
    path = save(tmp_path / "a.json", [feature([RING[0]], objectType="cell"), cell])
    result = painted(read_geojson(path, part="nucleus"), (3, 4))
    np.testing.assert_array_equal(result.labels, [[0, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]])
    assert result.lost == [0]
    np.testing.assert_array_equal(painted(read_geojson(path), (3, 4)).labels, np.ones((3, 4)))
    with pytest.raises(LabelReadError, match=r"a\.json.*nucleusGeometry.*part='cell'"):
        read_geojson(save(tmp_path / "a.json", [feature([BOX])]), part="nucleus")
    with pytest.raises(ConfigError, match=r"part.*'both'.*cell, nucleus"):
        read_geojson(path, part="both")


def test_child_objects_follow_their_parent(tmp_path):
    inner = feature([BOX], name="inner", childObjects=[])
    document = {"type": "FeatureCollection", "features": [feature(RING, name="outer", childObjects=[inner]), inner]}
    features = read_geojson(save(tmp_path / "a.json", document))
    assert [feature.name for feature in features] == ["outer", "inner", "inner"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([feature([BOX]), feature([1, 2], "Point")], "feature 2.*Point.*Polygon or MultiPolygon"),
        ([feature(BOX, "LineString")], "feature 1.*LineString.*Polygon or MultiPolygon"),
        ([{"type": "Feature", "geometry": None, "properties": None}], "feature 1.*None.*Polygon or MultiPolygon"),
        ([feature([BOX[:3]])], r"feature 1.*ring.*\(3, 2\).* 4 "),
        ([feature([BOX, [[float("nan"), 0]] * 4])], r"feature 1.*ring.*\(4, 2\).* 4 "),
        ([feature(BOX)], r"feature 1.*ring.*\(2,\).* 4 "),
        ([feature([[[0, 0], [1]]])], "cannot be decoded"),
        ({"type": "Polygon", "coordinates": [BOX]}, "no GeoJSON.*'Polygon'"),
        ({"type": "FeatureCollection"}, "cannot be decoded.*'features'"),
        ("x", "no GeoJSON.*None"),
    ],
)
def test_what_is_no_polygon_is_refused(tmp_path, document, message):
    with pytest.raises(LabelReadError, match=rf"x\.json.*{message}"):
        read_geojson(save(tmp_path / "x.json", document))
