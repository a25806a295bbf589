"""Writes the made log of docs/judging.md, of which the truth is known:

    python3 docs/judging/make_log.py > decisions.jsonl

12,000 users, a tenth of them held out. `high_intent` chooses by a fixed split and helps; `welcome` does nothing; `stalled` holds nobody out.
"""

import hashlib
import json
import random
import sys
from datetime import datetime, timedelta, timezone

USERS = 12_000
HELD_OUT = 0.10
ON_A_TEAM = 0.4
START = datetime(2026, 1, 5, tzinfo=timezone.utc)
WINDOW = timedelta(hours=24)
# Rule: where it shows, how many users it meets, what it offers if it doesn't choose, and how often that is clicked.
RULES = {
    "high_intent": ("in_app", 0.6, None, None),
    "welcome": ("in_app", 1.0, "tour", 0.052),
    "stalled": ("email", 0.35, "reminder", 0.085),
}
SPLIT = {"tour": 0.6, "video": 0.3, "demo": 0.1}
CLICKED_BY_THEMSELVES = 0.05


def clicked(offer, is_on_team):
    return (0.25 if is_on_team else 0.12) if offer == "demo" else 0.08


def time_of(row):
    return datetime.fromisoformat(row["decided_at"].replace("Z", "+00:00"))


def main():
    draw = random.Random(5)
    rows = []
    for user in range(USERS):
        is_held_out = draw.random() < HELD_OUT
        is_on_team = draw.random() < ON_A_TEAM
        at = START + timedelta(minutes=user * 2.4)
        for rule, (slot, share, offer, rate) in RULES.items():
            if draw.random() > share:
                continue
            at += timedelta(minutes=draw.randint(1, 50))
            chooses = offer is None
            if chooses:
                offer = draw.choices(list(SPLIT), list(SPLIT.values()))[0]
                rate = clicked(offer, is_on_team)
            # `stalled` holds nobody out.
            held_out = is_held_out and rule != "stalled"
            is_clicked = draw.random() < (CLICKED_BY_THEMSELVES if held_out else rate)
            context = {}
            if chooses:
                context = {"clicks": draw.randint(0, 9), "plan": "team" if is_on_team else "free"}
            candidates = [
                {"content": content, "probability": probability, "mean": 0.08, "spread": 0.01, "features": {}}
                for content, probability in SPLIT.items()
            ]
            rows.append({
                "trigger_id": hashlib.md5(f"{user}{rule}".encode()).hexdigest(),
                "user_id": f"u{user}",
                "journey": "saas-trial",
                "journey_version": "3f0a7c1de2b94856",
                "rule": rule,
                "slot": slot,
                "decided_at": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "held_out": held_out,
                "arms": {},
                "offer": offer,
                "propensity": SPLIT[offer] if chooses else 1.0,
                "reward": 1.0 if is_clicked else 0.0,
                "outcomes": ["click"] if is_clicked else [],
                "settled": True,
                "model_version": None,
                "context": context,
                "candidates": candidates if chooses else [],
            })
    rows.sort(key=lambda row: row["decided_at"])
    last = time_of(rows[-1])
    for row in rows:
        if last - time_of(row) < WINDOW:
            row["settled"] = False
            row["reward"] = row["reward"] or None
    for row in rows:
        sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")


main()
