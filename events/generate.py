#!/usr/bin/env python3
"""Make the sample Lambda events from their readable form.

    events/generate.py            write events/FUNCTION/NAME.json from events/plain/FUNCTION/NAME.json
    events/generate.py --check    fail when a written file is not what its readable form gives

A readable form has `about` (what the sample shows), `expect` (what the function must answer, read by .ci/invoke_check.py) and either `event` (the
Lambda event as it is) or `stream`, `shard` and `records`. A record has one of `json` (an object, written compactly), `text` (as it is) or `hex` (bytes), and
may have `key` (partition key, otherwise the user's id), `nest` (what the text "NEST" becomes in `json`: an object that nests this deep), `gzip` and `arrival`
(seconds after the first arrival).
The output depends on nothing but the readable form, so the two are compared in CI.
"""

import base64
import gzip
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
REGION = "us-east-1"
ACCOUNT = "123456789012"
# 2026-01-05T10:00:00Z.
FIRST_ARRIVAL_SECONDS = 1767607200
# A sequence number has up to 56 digits; Kinesis counts up from something like this one.
FIRST_SEQUENCE_NUMBER = 49671460000000000000000000000000000000000000000000000000
SEQUENCE_NUMBERS_PER_SHARD = 10**30


def record_bytes(record):
    if "json" in record:
        text = json.dumps(record["json"], ensure_ascii=False, separators=(",", ":"))
        depth = record.get("nest", 0)
        data = text.replace('"NEST"', '{"a":' * depth + "0" + "}" * depth).encode()
    elif "text" in record:
        data = record["text"].encode()
    else:
        data = bytes.fromhex(record["hex"])
    return gzip.compress(data, mtime=0) if record.get("gzip") else data


def partition_key(record):
    body = record.get("json", {})
    return record.get("key") or body.get("user_id") or body.get("anonymous_id") or "unknown"


def lambda_record(plain, index, record):
    shard = f"shardId-{plain['shard']:012d}"
    sequence_number = str(FIRST_SEQUENCE_NUMBER + plain["shard"] * SEQUENCE_NUMBERS_PER_SHARD + index)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": partition_key(record),
            "sequenceNumber": sequence_number,
            "data": base64.b64encode(record_bytes(record)).decode(),
            "approximateArrivalTimestamp": FIRST_ARRIVAL_SECONDS + record.get("arrival", index),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT}:role/usher",
        "awsRegion": REGION,
        "eventSourceARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{plain['stream']}",
    }


def lambda_event(plain):
    if "event" in plain:
        return plain["event"]
    return {"Records": [lambda_record(plain, index, record) for index, record in enumerate(plain["records"])]}


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    expected_paths = set()
    for source in sorted(HERE.glob("plain/*/*.json")):
        target = HERE / source.parent.name / source.name
        expected_paths.add(target)
        text = json.dumps(lambda_event(json.loads(source.read_text(encoding="utf-8"))), indent=2, ensure_ascii=False) + "\n"
        if check:
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                stale.append(target)
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
    stale += [path for path in HERE.glob("*-*/*.json") if path not in expected_paths]
    for path in stale:
        print(f"{path.relative_to(HERE.parent)} is not what events/plain says; run events/generate.py", file=sys.stderr)
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
