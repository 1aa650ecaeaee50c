"""Draw the curves of a training from its history.csv (needs the extra `docs`: pip install -e '.[docs]').

python scripts/tools/plot_history.py HISTORY.csv [HISTORY_OF_NEXT_STAGE.csv ...] CURVES.png
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt


def plot(history: pd.DataFrame, target: Path) -> None:
    """Loss and learning rate on the left, validation scores on the right, over the epochs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(history["epoch"], history["loss"], color="#0072B2")
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    rate = left.twinx()
    rate.plot(history["epoch"], history["learning_rate"], color="#999999", linewidth=1)
    rate.set_ylabel("learning rate", color="#777777")
    validated = history.dropna(subset=["val_ap_mean"])
    for name, label, colour in (("val_ap50", "AP@.5", "#009E73"), ("val_ap_mean", "mean AP .5:.95", "#D55E00")):
        right.plot(validated["epoch"], validated[name], marker=".", label=label, color=colour)
    right.set(xlabel="epoch", ylabel="validation, mean over images", ylim=(0, 1))
    right.legend()
    for end in history.loc[history["stage"].diff().shift(-1) > 0, "epoch"]:
        left.axvline(end, color="#cccccc", linewidth=1)
        right.axvline(end, color="#cccccc", linewidth=1)
    figure.savefig(target, dpi=110)


def read(paths: list[Path]) -> pd.DataFrame:
    """Histories of the stages of a training, one after the other, with their number in the column ``stage``."""
    stages = [pd.read_csv(path).assign(stage=number) for number, path in enumerate(paths)]
    history = pd.concat(stages, ignore_index=True)
    return history.assign(epoch=range(1, len(history) + 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path, nargs="+")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    plot(read(arguments.history), arguments.target)
