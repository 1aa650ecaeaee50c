"""Images of a user with labels in every encoding, written without the package."""

import json
import re

import numpy as np
from roifile import ImagejRoi, roiwrite

from .contract import DataSet, save

CUSTOM = DataSet("custom")
H, W = 12, 17
CELLS = {  # half-open (y0, x0, y1, x1); the first and the third have a corner in common
    "a": [(1, 2, 5, 5), (1, 10, 4, 15), (5, 5, 10, 13)],
    "b": [(0, 1, 2, 6), (3, 4, 9, 5), (7, 8, 11, 10), (11, 0, 12, 2)],
}
COLOURS = {"255,0,0": "tumour", "#00ff00": "stroma"}


def truth(stem):
    labels = np.zeros((H, W), np.int32)
    for number, (y0, x0, y1, x1) in enumerate(CELLS.get(stem, ()), start=1):
        labels[y0:y1, x0:x1] = number
    return labels


def save_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def save_image(path, seed=0):
    save(path, np.random.default_rng(seed).integers(0, 255, (H, W), np.uint8))


def save_labels(path, stem="a"):
    save(path, truth(stem).astype(np.uint16))


def corners(box):
    y0, x0, y1, x1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def runs(mask, order):
    """Start, from 0, and length of each run."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(order).astype(int), 1)))
    return [(int(start), int(stop - start)) for start, stop in edges.reshape(-1, 2)]


def write_label_map(folder, stem):
    save_labels(folder / "labels" / f"{stem}.tif", stem)


def write_mask_files(folder, stem):
    for number in range(1, len(CELLS[stem]) + 1):
        save(folder / "masks" / stem / f"{number}.png", np.uint8(truth(stem) == number) * 255)


def write_yolo(folder, stem):
    lines = []
    for y0, x0, y1, x1 in CELLS[stem]:  # through the centres of the outermost pixels
        points = corners((y0, x0, y1 - 1, x1 - 1))
        lines.append(" ".join(["0", *(f"{x / W:.6f} {y / H:.6f}" for x, y in points)]))
    save_text(folder / "labels" / f"{stem}.txt", "\n".join(lines))


def save_rois(path, outlines):
    """Write an ImageJ ROI set of outlines, each (N, 2)."""
    rois = [ImagejRoi.frompoints(np.array(outline)) for outline in outlines]
    for number, roi in enumerate(rois):
        roi.name = f"{number:03d}"
    roiwrite(path, rois)


def save_features(path, outlines):
    """Write a GeoJSON file of outlines, each with its properties."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*outline, outline[0]]]},
            "properties": properties,
        }
        for outline, properties in outlines
    ]
    save_text(path, json.dumps({"type": "FeatureCollection", "features": features}))


def write_imagej(folder, stem):
    save_rois(folder / f"{stem}_RoiSet.zip", map(corners, CELLS[stem]))


def write_geojson(folder, stem):
    save_features(folder / f"{stem}.json", [(corners(box), {"objectType": "annotation"}) for box in CELLS[stem]])


def write_cellpose_seg(folder, stem):
    np.save(folder / f"{stem}_seg.npy", {"masks": truth(stem).astype(np.uint16), "filename": stem}, allow_pickle=True)


def coco_entries(names):
    """A COCO file with uncompressed run lengths, which go down the columns."""
    images = [{"id": i, "file_name": name, "height": H, "width": W} for i, name in enumerate(names)]
    annotations = []
    for image in images:
        labels = truth(re.split(r"[/\\]", image["file_name"])[-1][0])
        for number in range(1, labels.max() + 1):
            ends = [0]
            for start, length in runs(labels == number, "F"):
                ends += [start, start + length]
            counts = np.diff([*ends, H * W]).tolist()
            segmentation = {"size": [H, W], "counts": counts}
            annotations.append(
                {"id": len(annotations), "image_id": image["id"], "category_id": 1, "segmentation": segmentation}
            )
    return {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}


def write_coco(folder, stem):
    save_text(folder / "annotations.json", json.dumps(coco_entries(["a.png", "b.png"])))


def write_kaggle(folder, stem, order="F"):
    rows = ["ImageId,EncodedPixels"]
    for one, boxes in CELLS.items():
        for number in range(1, len(boxes) + 1):
            pairs = runs(truth(one) == number, order)
            rows.append(f"{one}," + " ".join(f"{start + 1} {length}" for start, length in pairs))
    save_text(folder / "train.csv", "\n".join(rows))


def write_colours(folder, stem):
    """One class for the first two cells, another for the third, so that ids are in the order of the classes."""
    palette = np.array([(0, 0, 0), (0, 255, 0), (0, 255, 0), (255, 0, 0), (255, 0, 0)], np.uint8)
    save(folder / "masks" / f"{stem}.png", palette[truth(stem)])


def write_binary(folder, stem):
    save(folder / "masks" / f"{stem}.png", np.uint8(truth(stem) > 0) * 255)


WRITERS = {
    "label_map": write_label_map,
    "mask_files": write_mask_files,
    "yolo": write_yolo,
    "imagej": write_imagej,
    "geojson": write_geojson,
    "cellpose_seg": write_cellpose_seg,
    "coco": write_coco,
    "kaggle_rle": write_kaggle,
    "colours": write_colours,
    "binary": write_binary,
}


def read(folder, **options):
    """Label maps of all images by name."""
    found = CUSTOM.locate(folder, **options)
    assert found.problems == []
    return {item.name: CUSTOM.convert(item, **options) for item in found.items}
