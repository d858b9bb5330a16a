"""The half of the RecTools study that runs in an environment of its own: RecTools needs an older NumPy than we do.

Called with a folder and a seed: reads train.csv, history.csv, asked.csv and settings.json, writes recommended.csv.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from pytorch_lightning import seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main(folder: Path, seed: int) -> None:
    """Train on train.csv, and recommend after history.csv."""
    seed_everything(seed, verbose=False)
    settings = json.loads((folder / "settings.json").read_text())
    model = SASRecModel(**settings["model"])
    model.fit(_dataset(folder / "train.csv"))
    asked = pd.read_csv(folder / "asked.csv")["user_id"].to_numpy()
    recommended = model.recommend(
        users=asked, dataset=_dataset(folder / "history.csv"), k=settings["k"], filter_viewed=True
    )
    recommended.to_csv(folder / "recommended.csv", index=False)


def _dataset(file: Path) -> Dataset:
    events = pd.read_csv(file)
    events["datetime"] = pd.to_datetime(events["order"], unit="s")
    events["weight"] = 1
    return Dataset.construct(events[["user_id", "item_id", "datetime", "weight"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
