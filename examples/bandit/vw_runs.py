"""Vowpal Wabbit on the public data sets, shown the rows in the very order in which Usher's learners saw them.

Runs in the virtual environment that `compare` makes.
"""

import csv
import gzip
import io
import random
import statistics
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vowpalwabbit import Workspace

from vw_settings import settings

HILLSTROM_ARMS = ["Mens E-Mail", "Womens E-Mail", "No E-Mail"]
HILLSTROM_NUMBERS = ["recency", "history", "mens", "womens", "newbie"]
HILLSTROM_TEXTS = ["zip_code", "channel"]
# What lies further out than so many deviations counts as that, as in Usher's layout.
STANDARDISED_MAX = 4.0
# A probability in a label is at least this.
PROBABILITY_MIN = 1e-6


@dataclass
class DataSet:
    arms: list
    """By how numbers are given, the context of each row as a VW line."""
    contexts: dict
    """Of each row the arm it had (or is right), and the reward of that arm."""
    arm_of_row: list
    rewards: list
    """Whether a row says what one arm earned (replay), rather than what every arm would have."""
    is_logged: bool

    def best_fixed_arm(self):
        """The mean reward of the arm that is best in hindsight."""
        by_arm = [[] for _ in self.arms]
        for arm, reward in zip(self.arm_of_row, self.rewards):
            by_arm[arm].append(reward)
        if self.is_logged:
            return max(sum(rewards) / len(rewards) for rewards in by_arm)
        return max(len(rewards) for rewards in by_arm) / len(self.rewards)


def contexts(rows, numbers, texts):
    """The context of each row as a line: its numbers as they are, or standardised by the whole set."""
    columns = {name: [float(row[name]) for row in rows] for name in numbers}
    lines = {}
    for how in ("as they are", "standardised"):
        if how == "standardised":
            for name, column in columns.items():
                mean, deviation = statistics.fmean(column), statistics.pstdev(column) or 1.0
                limit = STANDARDISED_MAX
                columns[name] = [max(-limit, min(limit, (value - mean) / deviation)) for value in column]
        lines[how] = [
            " ".join(
                ["shared |s"]
                + [f"{name}:{column[index]:.6g}" for name, column in columns.items()]
                + [f"{name}={row[name]}".replace(" ", "_") for name in texts]
            )
            for index, row in enumerate(rows)
        ]
    return lines


def segments(folder):
    with zipfile.ZipFile(folder / "segment.csv.zip") as archive:
        text = archive.read(archive.namelist()[0]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    names = [name for name in rows[0] if name != "category"]
    arms = list(dict.fromkeys(row["category"] for row in rows))
    right = [arms.index(row["category"]) for row in rows]
    return DataSet(arms, contexts(rows, names, []), right, [1.0] * len(rows), False)


def hillstrom(folder):
    with gzip.open(folder / "hillstrom.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    arms = [HILLSTROM_ARMS.index(row["segment"]) for row in rows]
    rewards = [float(row["visit"]) for row in rows]
    return DataSet(HILLSTROM_ARMS, contexts(rows, HILLSTROM_NUMBERS, HILLSTROM_TEXTS), arms, rewards, True)


def draw(probabilities, rng):
    """One arm, each as often as its probability says."""
    point = rng.random() * sum(probabilities)
    for arm, probability in enumerate(probabilities):
        point -= probability
        if point < 0:
            return arm
    return len(probabilities) - 1


def run(data, lines_of_rows, order, command_line, seed):
    """One pass over the rows: the reward, and how many decisions it is from."""
    learner = Workspace(f"{command_line} --random_seed {seed + 1} --quiet")
    rng = random.Random(seed)
    arms = [f"|a arm_{index}" for index in range(len(data.arms))]
    reward_sum, decisions = 0.0, 0
    for row in order:
        probabilities = learner.predict([lines_of_rows[row], *arms])
        chosen = draw(probabilities, rng)
        is_same = chosen == data.arm_of_row[row]
        if data.is_logged and not is_same:
            continue
        reward = data.rewards[row] if is_same else 0.0
        reward_sum += reward
        decisions += 1
        lines = list(arms)
        lines[chosen] = f"0:{-reward}:{max(probabilities[chosen], PROBABILITY_MIN)} {lines[chosen]}"
        learner.learn([lines_of_rows[row], *lines])
    learner.finish()
    return reward_sum, decisions


def main():
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    sets, seeds = sys.argv[3].split(","), [int(seed) for seed in sys.argv[4].split(",")]
    readers = {"segments": segments, "hillstrom": hillstrom}
    with open(output / "best_fixed_arm.csv", "w", newline="") as best, open(output / "vw.csv", "w", newline="") as vw:
        best_fixed, figures = csv.writer(best), csv.writer(vw)
        best_fixed.writerow(["set", "reward"])
        figures.writerow(["set", "exploration", "numbers", "command_line", "seed", "reward", "decisions"])
        for name in sets:
            data = readers[name](folder)
            best_fixed.writerow([name, data.best_fixed_arm()])
            orders = {seed: read_order(output / f"{name}-{seed}.order") for seed in seeds}
            for exploration, numbers, command_line in settings():
                started = time.monotonic()
                rates = []
                for seed in seeds:
                    reward, decisions = run(data, data.contexts[numbers], orders[seed], command_line, seed)
                    rates.append(reward / decisions)
                    figures.writerow([name, exploration, numbers, command_line, seed, reward, decisions])
                vw.flush()
                seconds = time.monotonic() - started
                print(
                    f"  {name:<10} {statistics.fmean(rates):.4f}  {seconds:5.1f} s  {numbers:<12}  {command_line}", flush=True
                )


def read_order(path):
    return [int(line) for line in path.read_text().split()]


if __name__ == "__main__":
    main()
