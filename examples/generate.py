#!/usr/bin/env python3
"""Writes the sample events of the examples: `python3 examples/generate.py`.

They are made up, and the same each time. Each file holds what happens to a journey in production: people who are anonymous at
first, several of them at once, events that were sent late (`sent_at` after `timestamp`) and events that were sent twice.
"""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

START = datetime(2025, 3, 3, 6, 0, tzinfo=timezone.utc)  # a Monday
ZONES = ["Europe/Berlin", "America/New_York", "Europe/London", "Asia/Tokyo", None]
AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.3 Mobile/15E148 Safari/604.1",
    None,
]
LATE_SHARE = 0.04
TWICE_SHARE = 0.04


class Story:
    """The events of one example, in any order until they are written."""

    def __init__(self, name, seed):
        self.name = name
        self.random = random.Random(seed)
        self.arrivals = []
        self.count = 0

    def chance(self, share):
        return self.random.random() < share

    def between(self, low, high):
        return low + (high - low) * self.random.random()

    def one_of(self, some):
        return some[int(self.random.random() * len(some))]

    def person(self, number, prefix):
        zone = self.one_of(ZONES)
        return {"user_id": f"{prefix}-{number:02}", "zone": zone, "agent": self.one_of(AGENTS)}

    def add(self, person, minutes, event_type, anonymous=False, both=False, **members):
        """An event `minutes` after the start, as the person or as their browser (anonymous), or naming both."""
        at = START + timedelta(milliseconds=round(minutes * 60_000))
        self.count += 1
        event = {"event_id": f"{self.name}-{self.count:04}", "schema_version": 1, "event_type": event_type, "timestamp": text(at)}
        if not anonymous:
            event["user_id"] = person["user_id"]
        if anonymous or both:
            event["anonymous_id"] = "browser-" + person["user_id"]
        if person["zone"]:
            event["location"] = {"timezone": person["zone"]}
        if person["agent"]:
            event["user_agent"] = person["agent"]
        event.update(members)
        arrives = at
        if self.chance(LATE_SHARE):
            # The phone had no network.
            arrives = at + timedelta(milliseconds=round(self.between(2, 90) * 60_000))
            event["sent_at"] = text(arrives)
        self.arrivals.append((arrives, self.count, event))
        if self.chance(TWICE_SHARE):
            again = dict(event, sent_at=text(arrives + timedelta(seconds=20)))
            self.arrivals.append((arrives + timedelta(seconds=20), self.count, again))
        return at

    def write(self, folder):
        self.arrivals.sort(key=lambda arrival: arrival[:2])
        lines = [json.dumps(event, separators=(",", ":")) for _, _, event in self.arrivals]
        path = Path(__file__).parent / folder / "events.jsonl"
        path.write_text("\n".join(lines) + "\n")
        print(f"{path}: {len(lines)} lines")


def text(at):
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


DAY = 24 * 60


def saas_trial():
    story = Story("trial", 11)
    for number in range(1, 31):
        person = story.person(number, "trial")
        now = story.between(0, 3 * DAY)
        for _ in range(int(story.between(0, 4))):
            story.add(person, now, "site_view", anonymous=True, properties={"campaign": story.one_of(["search", "podcast", "friend"])})
            now += story.between(0.5, 6)
        if story.chance(0.1):
            continue  # only looked
        signed_up = now
        story.add(person, now, "sign_up", both=story.chance(0.8))
        now += 0.2
        story.add(person, now, "identify", traits={"plan": "trial", "seats": story.one_of([1, 3, 8, 12, 40])})
        if story.chance(0.75):
            now += story.one_of([3, 8, 200, 2000])
            story.add(person, now, "email_verified")
        for _ in range(int(story.between(0, 6))):
            now += story.between(1, 8) if story.chance(0.7) else story.between(0.5, 2) * DAY
            story.add(person, now, story.one_of(["page_view", "click", "click"]), category=story.one_of(["board", "docs", "settings"]))
        if story.chance(0.6):
            now += story.between(5, 600)
            story.add(person, now, "project_created", properties={"template": story.chance(0.5)})
            for _ in range(int(story.between(1, 6))):
                now += story.between(0.5, 5)
                story.add(person, now, "click", category="board")
        if story.chance(0.4):
            now += story.between(10, 2 * DAY)
            story.add(person, now, "teammate_invited")
        if story.chance(0.5):
            now += story.between(30, 3 * DAY)
            for _ in range(int(story.between(2, 6))):
                story.add(person, now, "pricing_view", category="pricing")
                now += story.between(0.5, 30)
        if story.chance(0.3):
            now += story.between(1, 3 * DAY)
            story.add(person, now, "subscribed", properties={"plan": story.one_of(["team", "business"])})
        elif story.chance(0.1):
            story.add(person, now + 60, "account_closed")
        elif story.chance(0.3):
            story.add(person, max(now, signed_up + story.between(8, 15) * DAY), "page_view", category="board")
    story.write("saas-trial")


def chatbot():
    story = Story("chat", 23)
    topics = ["delivery", "returns", "invoice", "size"]
    for number in range(1, 25):
        person = story.person(number, "shopper")
        known = story.chance(0.4)
        # An older client makes up a user id for guests, and says later whose it was.
        guest = dict(person, user_id=f"guest-{number:02}") if story.chance(0.3) else None
        now = story.between(0, 2 * DAY)
        for conversation in range(int(story.between(1, 5))):
            who = person if known or guest is None else guest
            anonymous = not known and guest is None
            story.add(who, now, "chat_opened", anonymous=anonymous)
            topic = story.one_of(topics)
            is_bad = story.chance(0.4)
            for _ in range(int(story.between(1, 6))):
                now += story.between(0.2, 1.5)
                story.add(who, now, "message", anonymous=anonymous, properties={"topic": topic, "letters": int(story.between(5, 200))})
                now += 0.05
                story.add(who, now, "bot_failed" if story.chance(0.7 if is_bad else 0.1) else "bot_answered", anonymous=anonymous)
            if not known and story.chance(0.5):
                now += 0.5
                known = True
                if guest is not None:
                    story.add(person, now, "alias", previous_id=guest["user_id"])
                    now += 0.1
                story.add(person, now, "identify", both=guest is None, traits={"tier": story.one_of(["gold", "plain", "plain"])})
                who, anonymous = person, False
            if story.chance(0.3):
                now += 0.3
                story.add(who, now, "feedback", anonymous=anonymous, properties={"helpful": not is_bad})
            if is_bad and story.chance(0.5):
                now += 0.5
                story.add(who, now, "handed_over", anonymous=anonymous)
            if known and story.chance(0.3):
                now += story.between(5, 60)
                story.add(person, now, "order_placed", properties={"amount": round(story.between(10, 200), 2)})
            now += story.between(20, 2 * DAY)
    story.write("chatbot")


def media():
    story = Story("read", 37)
    sections = {"politics": 40, "science": 25, "sport": 30}
    for number in range(1, 25):
        person = story.person(number, "reader")
        favourite = story.one_of(list(sections))
        is_known = story.chance(0.5)
        was_anonymous = not is_known
        now = story.between(0, 2 * DAY)
        for visit in range(int(story.between(1, 7))):
            for _ in range(int(story.between(1, 7))):
                section = favourite if story.chance(0.7) else story.one_of(list(sections))
                item = int(story.between(1, sections[section]))
                story.add(
                    person, now, "article_view" if story.chance(0.85) else "video_play", anonymous=not is_known,
                    content_id="space-1" if section == "science" and item < 3 else f"{section}-{item}",
                    category=section,
                    properties={"read_ms": int(story.between(3_000, 240_000)), "author": f"author-{item % 7}"},
                )
                if story.chance(0.2):
                    story.add(person, now + 0.4, story.one_of(["like", "like", "share"]), anonymous=not is_known, category=section)
                if story.chance(0.2):
                    story.add(person, now + 0.5, "heartbeat", anonymous=not is_known)
                if story.chance(0.2):
                    story.add(person, now + 0.6, "paywall_hit", anonymous=not is_known)
                now += story.between(0.8, 9)
            if not is_known and story.chance(0.4):
                is_known = True
                story.add(person, now, "newsletter_joined", both=True)
                now += 0.5
            now += story.between(0.3, 2.5) * DAY
        if is_known and story.chance(0.35):
            story.add(person, now, "subscribed", both=was_anonymous)
            story.add(person, now + 5, "article_view", content_id=f"{favourite}-1", category=favourite, properties={"read_ms": 90_000, "author": "author-1"})
            if story.chance(0.4):
                story.add(person, now + 20 * DAY, "cancelled")
    story.write("media")


saas_trial()
chatbot()
media()
