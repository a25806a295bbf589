"""Makes the rows and the expected figures that the off-policy estimators are held to.

    python3 -m venv v && v/bin/pip install 'numpy<2' pandas scikit-learn scipy tqdm pyyaml matplotlib seaborn mypy_extensions
    v/bin/pip install --no-deps --ignore-requires-python obp==0.5.5
    v/bin/python make_expected.py FOLDER_OF_OBD OUTPUT_FOLDER

FOLDER_OF_OBD holds {random,bts}/{all,men}/{all,men}.csv.gz of the Open Bandit Dataset, small version (CC BY 4.0: Saito, Aihara,
Matsutani, Narita, "Open Bandit Dataset and Pipeline", 2020; research.zozo.com/data.html). It writes their columns item_id,
position, click and propensity_score, and expected.csv: what the public package obp makes of them. obp's estimators are used as
they are; only PyTorch, which it imports but which these estimators don't use, is replaced by an empty module.
"""

import csv
import gzip
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Nothing(metaclass=Anything):
    pass


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torch" else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(Nothing, name)
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, NoTorch())

import numpy as np
import obp
from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting

CLIPS = [2.0, 10.0]
POSITIONS = 3


def rows_of(path):
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return (
        np.array([int(row["item_id"]) for row in rows]),
        np.array([int(row["position"]) for row in rows]),
        np.array([int(row["click"]) for row in rows]),
        [row["propensity_score"] for row in rows],
    )


def zero_based(positions):
    # As obp's own reader does: 1, 2, 3 become 0, 1, 2.
    return np.unique(positions, return_inverse=True)[1]


def policies(items, positions, items_of_bts, positions_of_bts):
    """The policies to be judged, as probabilities by item and position."""
    even = np.full((items, POSITIONS), 1.0 / items)
    skewed = np.array([1.0 + (7 * item) % 11 for item in range(items)])
    skewed = np.repeat((skewed / skewed.sum())[:, None], POSITIONS, axis=1)
    # What Bernoulli Thompson sampling did, by its own log; every item once more, so that none has no chance.
    counts = np.ones((items, POSITIONS))
    np.add.at(counts, (items_of_bts, positions_of_bts), 1.0)
    bts = counts / counts.sum(axis=0)
    one = np.zeros((items, POSITIONS))
    one[5, :] = 1.0
    return {"even": even, "skewed": skewed, "as bts": bts, "only item 5": one}


def main(source, output):
    expected = []
    for campaign in ["all", "men"]:
        logs = {}
        for behavior in ["random", "bts"]:
            item, position, click, text = rows_of(source / behavior / campaign / f"{campaign}.csv.gz")
            position = zero_based(position)
            logs[behavior] = (item, position, click, text)
            with open(output / f"{behavior}-{campaign}.csv.gz", "wb") as raw:
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
                    file.write(b"item,position,click,propensity\n")
                    for row in zip(item, position, click, text):
                        file.write((",".join(str(part) for part in row) + "\n").encode())
        for behavior, (item, position, click, text) in logs.items():
            pscore = np.array([float(part) for part in text])
            items = int(max(logs["random"][0].max(), logs["bts"][0].max())) + 1
            clicks, shown = np.zeros(items), np.zeros(items)
            np.add.at(clicks, item, click)
            np.add.at(shown, item, 1.0)
            model = (clicks + 1.0) / (shown + 200.0)
            q = np.repeat(np.repeat(model[None, :, None], len(item), axis=0), POSITIONS, axis=2)
            for name, policy in policies(items, position, logs["bts"][0], logs["bts"][1]).items():
                action_dist = np.repeat(policy[None], len(item), axis=0)
                common = dict(
                    reward=click.astype(float), action=item, pscore=pscore, action_dist=action_dist, position=position
                )
                weights = policy[item, position] / pscore
                figures = {
                    "ips": InverseProbabilityWeighting().estimate_policy_value(**common),
                    "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**common),
                    "dr": DoublyRobust().estimate_policy_value(**common, estimated_rewards_by_reg_model=q),
                    "ess": weights.sum() ** 2 / (weights**2).sum(),
                }
                for clip in CLIPS:
                    estimator = InverseProbabilityWeighting(lambda_=clip)
                    figures[f"clipped {clip:g}"] = estimator.estimate_policy_value(**common)
                for figure, value in figures.items():
                    expected.append([campaign, behavior, name, figure, repr(float(value))])
    with open(output / "expected.csv", "w") as file:
        file.write("campaign,behavior,policy,figure,value\n")
        for row in expected:
            file.write(",".join(row) + "\n")
    print(f"obp {obp.__version__}: {len(expected)} figures")


main(Path(sys.argv[1]), Path(sys.argv[2]))
