"""Invoke the functions under `cargo lambda watch` with every sample of events/, against a running `usher local`.

Nothing differs from AWS but the endpoints: the functions get them, the template's names and made-up credentials from the environment. What each sample
must answer and leave behind is its `expect` in events/plain: `failed` (sequence numbers' positions in the batch), `error` (the invocation fails and says this), `users`
(profiles that exist), `tiles` and `no_tiles` (minutes in which the trends table has a tile of the sample's shard, or has none), `rejected` (reason and field of each record that this sample puts on the rejected stream), `decisions` (items in the decision log), `answer` (all that a
function answers that reads no stream).
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import boto3
import botocore.config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROFILES, DECISIONS, TRENDS, MODELS = "profiles", "decisions", "trends", "models"
# Partitions that the tiles of a minute are spread over.
TREND_BUCKETS = 16
INTERACTIONS, REJECTED, TRIGGERS = "interactions", "rejected", "triggers"
# Both commands may have to build first.
START_SECONDS_MAX = 900
INVOKE_SECONDS_MAX = 600
STOP_SECONDS_MAX = 20
ENDPOINTS = ("AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_DYNAMODB")


class Failed(Exception):
    """What to print instead of a traceback."""


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Child:
    """A process in a group of its own, whose output is kept to be shown when something fails."""

    def __init__(self, name, command, environment):
        self.name = name
        self.lines = []
        self.fresh = queue.Queue()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self.fresh.put(line.rstrip())
        self.fresh.put(None)

    def wait_for_line(self, is_wanted):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                line = self.fresh.get(timeout=1)
            except queue.Empty:
                continue
            if line is None:
                raise Failed(f"{self.name} stopped before it was ready:\n{self.tail()}")
            if is_wanted(line):
                return
        raise Failed(f"{self.name} was not ready after {START_SECONDS_MAX} s:\n{self.tail()}")

    def tail(self):
        return "\n".join(self.lines[-40:])

    def stop(self):
        for sign in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS_MAX)
                # The leader is gone; a child of it that ignored the signal is not left behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                return


@contextlib.contextmanager
def running(name, command, environment):
    child = Child(name, command, environment)
    try:
        yield child
    finally:
        child.stop()


class Cloud:
    """What the functions left behind, read as any client would."""

    def __init__(self, endpoints):
        config = botocore.config.Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=30)
        common = {
            "region_name": "us-east-1",
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
            "config": config,
        }
        self.kinesis = boto3.client("kinesis", endpoint_url=endpoints["AWS_ENDPOINT_URL_KINESIS"], **common)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=endpoints["AWS_ENDPOINT_URL_DYNAMODB"], **common)

    def rejected(self):
        """Reason and field of every record on the rejected stream, by its place: an invocation that is repeated rejects a record once more."""
        found = []
        for shard in self.kinesis.list_shards(StreamName=REJECTED)["Shards"]:
            iterator = self.kinesis.get_shard_iterator(StreamName=REJECTED, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            while True:
                page = self.kinesis.get_records(ShardIterator=iterator, Limit=1000)
                found += [json.loads(record["Data"]) for record in page["Records"]]
                iterator = page.get("NextShardIterator")
                if not page["Records"] or not iterator:
                    break
        return found

    def has_item(self, table, **key):
        return "Item" in self.dynamodb.get_item(TableName=table, Key={name: {"S": value} for name, value in key.items()}, ConsistentRead=True)

    def has_tile(self, minute, shard):
        return any(self.has_item(TRENDS, minute=f"{minute}#{bucket:02}", shard=shard) for bucket in range(TREND_BUCKETS))


def invoke(function, data_file, port, environment):
    run = subprocess.run(
        ["cargo", "lambda", "invoke", function, "--invoke-address", "127.0.0.1", "--invoke-port", str(port), "--data-file", data_file],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INVOKE_SECONDS_MAX, check=False,
    )
    return run.returncode == 0, run.stdout, run.stderr


def check_sample(plain_path, port, environment, cloud):
    function = plain_path.parent.name
    data_file = ROOT / "events" / function / plain_path.name
    expect = json.loads(plain_path.read_text(encoding="utf-8"))["expect"]

    succeeded, stdout, stderr = invoke(function, data_file, port, environment)
    if "error" in expect:
        # The command draws a frame around the message and breaks its lines.
        told = " ".join((stdout + stderr).replace("│", " ").split())
        return [] if not succeeded and expect["error"] in told else [f"expected an error that says {expect['error']!r}, got: {told}"]
    if not succeeded:
        return [f"the invocation failed: {stdout}{stderr}"]

    if "answer" in expect:
        told = json.loads(stdout or "null")
        return [] if told == expect["answer"] else [f"expected {expect['answer']}, got: {stdout}"]

    problems = []
    sequence_numbers = [record["kinesis"]["sequenceNumber"] for record in json.loads(data_file.read_text(encoding="utf-8"))["Records"]]
    failed = [sequence_numbers[position] for position in expect["failed"]]
    try:
        answer = json.loads(stdout)
        answered = [item["itemIdentifier"] for item in answer["batchItemFailures"]]
    except (ValueError, KeyError, TypeError):
        return [f"expected batchItemFailures, got: {stdout}"]
    if answered != failed:
        problems.append(f"expected failures {failed}, got {answered}")
    for user in expect.get("users", []):
        if not cloud.has_item(PROFILES, user_id=user):
            problems.append(f"there is no profile of {user}")
    for user, trigger_id in expect.get("decisions", []):
        if not cloud.has_item(DECISIONS, user_id=user, trigger_id=trigger_id):
            problems.append(f"decision {trigger_id} of {user} is not in the log")
    plain = json.loads(plain_path.read_text(encoding="utf-8"))
    for members, is_wanted in (("tiles", True), ("no_tiles", False)):
        for minute in expect.get(members, []):
            if cloud.has_tile(minute, f"{plain['stream']}/shardId-{plain['shard']:012d}") != is_wanted:
                problems.append(f"there is {'no' if is_wanted else 'a'} tile of {minute}")
    if "rejected" in expect:
        rejected = {
            record["sequence_number"]: [record["reason"], record["field"]] for record in cloud.rejected() if record["sequence_number"] in sequence_numbers
        }
        if sorted(rejected.values()) != sorted(expect["rejected"]):
            problems.append(f"expected {expect['rejected']} on {REJECTED}, got {list(rejected.values())}")
    return problems


def check_all(port, environment, cloud, watch):
    failures = 0
    samples = sorted((ROOT / "events" / "plain").glob("*/*.json"))
    for sample in samples:
        problems = check_sample(sample, port, environment, cloud)
        failures += bool(problems)
        print(f"{'FAILED' if problems else 'passed'} {sample.parent.name}/{sample.name}", flush=True)
        for problem in problems:
            print(f"    {problem.strip()}", flush=True)
    if failures:
        raise Failed(f"{failures} of {len(samples)} samples failed; the functions said last:\n{watch.tail()}")
    print(f"invoke check: {len(samples)} samples passed", flush=True)


def main():
    kinesis_port, dynamodb_port, invoke_port = free_port(), free_port(), free_port()
    local = ["cargo", "run", "--quiet", "--bin", "usher", "--", "local", "--kinesis-port", str(kinesis_port), "--dynamodb-port", str(dynamodb_port)]
    endpoints = {}

    def take_endpoint(line):
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if name in ENDPOINTS:
            endpoints[name] = value.strip("\"'")
        return len(endpoints) == len(ENDPOINTS)

    with running("usher local", local, os.environ.copy()) as cloud_process:
        cloud_process.wait_for_line(take_endpoint)
        environment = {
            **os.environ,
            **endpoints,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
            "USHER_PROFILES_TABLE": PROFILES,
            "USHER_DECISIONS_TABLE": DECISIONS,
            "USHER_TRENDS_TABLE": TRENDS,
            "USHER_MODELS_TABLE": MODELS,
            "USHER_TRIGGERS_STREAM": TRIGGERS,
            "USHER_REJECTED_STREAM": REJECTED,
            "USHER_INTERACTIONS_STREAM": INTERACTIONS,
            # One look, so that nobody waits for the next.
            "USHER_SWEEP_PASSES": "1",
            "USHER_JOURNEY_PATH": str(ROOT / "journey" / "journey.yaml"),
            "USHER_WEBHOOK_URL": "",
            "USHER_WEBHOOK_SECRET": "",
        }
        watch_command = ["cargo", "lambda", "watch", "--ignore-changes", "--invoke-address", "127.0.0.1", "--invoke-port", str(invoke_port)]
        with running("cargo lambda watch", watch_command, environment) as watch:
            watch.wait_for_line(lambda line: str(invoke_port) in line)
            check_all(invoke_port, environment, Cloud(endpoints), watch)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
