"""Score label maps in a folder against a datalist, with one row for each group of images.

python scripts/evaluate_datalist.py PREDICTIONS --datalist FILE --basedir DIR [--groups FILE.csv --column modality]

PREDICTIONS holds ``<stem of the image>_labels.tif``, as ``--mode infer`` writes them. The table shows means over
images.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import pandas as pd

from cellbundle.datalist import load_datalists
from cellbundle.engine.evaluation import format_report, write_report
from cellbundle.io import read_labels, stem
from cellbundle.metrics import image_scores, pool


def evaluate(predictions: Path, datalist: Path, basedir: Path, split: str, fold: int) -> pd.DataFrame:
    """Scores of every image of a split, one row each."""
    rows = []
    for entry in load_datalists([{"datalist": str(datalist), "basedir": str(basedir)}], split, fold):
        name = stem(entry["image"])
        prediction = read_labels(predictions / f"{name}_labels.tif")
        rows.append({"image": name, **image_scores(read_labels(entry["label"]), prediction)})
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame, groups: dict[str, str]) -> dict[str, dict]:
    """``pool`` of every group and of all images."""
    members = defaultdict(list)
    for row in table.to_dict("records"):
        members[groups.get(row["image"], "other")].append(row)
        members["all"].append(row)
    scores = {name: [{k: v for k, v in row.items() if k != "image"} for row in rows] for name, rows in members.items()}
    return {name: pool(scores[name]) for name in sorted(scores, key=lambda n: (n == "all", n))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--basedir", type=Path, required=True)
    parser.add_argument("--split", default="testing")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--groups", type=Path, help="CSV file with a column 'id' (stem of the image)")
    parser.add_argument("--column", default="modality", help="column of --groups to group by")
    parser.add_argument("--output", type=Path, help="folder for report.json and scores.csv")
    arguments = parser.parse_args()
    table = evaluate(arguments.predictions, arguments.datalist, arguments.basedir, arguments.split, arguments.fold)
    group_of = {}
    if arguments.groups:
        group_of = pd.read_csv(arguments.groups).astype(str).set_index("id")[arguments.column].to_dict()
    report = summarise(table, group_of)
    print(format_report(report))
    if arguments.output:
        write_report(report, table, arguments.output)
