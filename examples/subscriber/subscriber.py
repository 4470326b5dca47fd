#!/usr/bin/env python3
"""Gets every event of a Wonder store from NATS, in order, and prints a line for each.

The events are CloudEvents 1.0 in binary mode: attributes are headers, the payload is the body. A
durable consumer on the server keeps this program's place, so that it goes on where it was after a
restart. It checks that no position is left out.

Exit codes: 0 when what it waited for has come, 1 when it has not in time or events are missing,
2 when it was called wrongly.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time

import nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

# Messages that are fetched at once.
BATCH = 100
# How long one fetch waits, in seconds.
FETCH_WAIT = 1.0
# Characters of a payload that a line shows.
SHOWN = 100


class Missing(Exception):
    """Events were left out."""


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Print every event of a Wonder store, as it comes.",
        epilog="Without --count, --until-type, --until-position or --idle it runs until stopped.",
    )
    add = parser.add_argument
    add("--server", default=os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
        help="where NATS is (default: $NATS_URL, or nats://127.0.0.1:4222)")
    add("--credentials", metavar="FILE", help="a .creds file, where the server asks for one")
    add("--prefix", default="wonder", help="the platform's prefix on NATS (default: wonder)")
    add("--durable", default="subscriber", metavar="NAME",
        help="the name under which the server keeps the place (default: subscriber)")
    add("--workspace", metavar="ID", help="only the events of one workspace")
    add("--count", type=int, metavar="N", help="end after so many events")
    add("--until-type", metavar="TYPE",
        help="end after the first event of a type, as in wonder.run.run_completed")
    add("--until-position", type=int, metavar="P", help="end after the event at a position")
    add("--idle", type=float, metavar="S", help="end when nothing has come for so many seconds")
    add("--timeout", type=float, metavar="S", help="give up after so many seconds (exit code 1)")
    add("--state", metavar="FILE",
        help="keep the last position here, to notice what is missing over restarts too")
    add("--allow-gaps", action="store_true",
        help="only tell of missing events: a stream doesn't keep them for ever")
    add("--json", action="store_true", help="print whole events, one JSON document a line")
    return parser.parse_args()


class Subscriber:
    """Prints events and checks their order."""

    def __init__(self, args):
        self.args = args
        self.seen = 0
        self.done = False
        # The last position, by the store that it is of.
        self.source, self.position = self.load()

    def load(self):
        if self.args.state and os.path.exists(self.args.state):
            with open(self.args.state, encoding="utf-8") as file:
                state = json.load(file)
            return state["source"], state["position"]
        return None, None

    def save(self):
        if not self.args.state:
            return
        # In one step, so that a kill leaves the old state or the new one.
        fresh = self.args.state + ".new"
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump({"source": self.source, "position": self.position}, file)
        os.replace(fresh, self.args.state)

    def take(self, message):
        """Handles one message. Delivery is at least once: what was seen is passed over."""
        headers = message.headers or {}
        source, position = headers["ce-source"], int(headers["ce-position"])
        if source != self.source:
            # Another store, or the first event: positions begin anew.
            self.source, self.position = source, None
        if self.position is not None and position <= self.position:
            return
        if self.position is not None and not self.args.workspace:
            self.check(position)
        self.position = position
        self.show(headers, message.data)
        self.seen += 1
        self.done = (
            self.seen == self.args.count
            or headers["ce-type"] == self.args.until_type
            or (self.args.until_position is not None
                and position >= self.args.until_position)
        )

    def check(self, position):
        due = self.position + 1
        if position == due:
            return
        text = f"events {due} to {position - 1} are missing"
        if not self.args.allow_gaps:
            raise Missing(text)
        print(text, file=sys.stderr)

    def show(self, headers, body):
        if self.args.json:
            event = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
            event["datacontenttype"] = headers.get("content-type", "application/json")
            event["data"] = json.loads(body)
            print(json.dumps(event), flush=True)
            return
        text = body.decode()
        text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        print(headers["ce-position"], headers["ce-time"], headers["ce-type"],
              headers["ce-subject"], text, flush=True)


async def subscribe(stream_context, args, deadline):
    """A durable pull consumer, as soon as there is a stream."""
    filtered = f"{args.prefix}.events.{args.workspace or '>'}"
    if args.workspace:
        filtered += ".>"
    config = ConsumerConfig(
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        max_ack_pending=2 * BATCH,
        # Only the journal decides what is done: an event is delivered until it is acknowledged.
        max_deliver=-1,
    )
    while True:
        try:
            return await stream_context.pull_subscribe(
                filtered,
                durable=args.durable,
                stream=f"{args.prefix.upper()}_EVENTS",
                config=config,
            )
        except (JetStreamError, NatsError) as error:
            if time.monotonic() >= deadline:
                raise
            print(f"waiting for the stream: {error}", file=sys.stderr)
            await asyncio.sleep(0.5)


async def fetch(subscription, limit):
    """The next messages, or none where none come for a moment."""
    try:
        return await subscription.fetch(limit, timeout=FETCH_WAIT)
    except NatsTimeout:
        return []
    except (JetStreamError, NatsError) as error:
        # The connection comes back by itself.
        print(f"waiting for nats: {error}", file=sys.stderr)
        await asyncio.sleep(FETCH_WAIT)
        return []


async def run(args):
    """Prints events until what was waited for has come; answers the exit code."""
    deadline = time.monotonic() + (args.timeout or float("inf"))
    connection = await nats.connect(
        args.server,
        user_credentials=args.credentials,
        max_reconnect_attempts=-1,
    )
    subscriber = Subscriber(args)
    try:
        subscription = await subscribe(connection.jetstream(), args, deadline)
        heard = time.monotonic()
        while not subscriber.done:
            if time.monotonic() >= deadline:
                print(f"gave up after {subscriber.seen} events", file=sys.stderr)
                return 1
            # Never more than are wanted: what is fetched and not acknowledged comes again later.
            left = args.count - subscriber.seen if args.count else BATCH
            messages = await fetch(subscription, min(BATCH, left))
            for message in messages:
                if subscriber.done:
                    await message.nak()
                    continue
                subscriber.take(message)
                subscriber.save()
                await message.ack()
                heard = time.monotonic()
            if args.idle and time.monotonic() - heard >= args.idle:
                break
        return 0
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    finally:
        # Acknowledgements are sent before the connection ends.
        with contextlib.suppress(NatsError):
            await connection.flush()
        await connection.close()


def main():
    args = arguments()
    try:
        return asyncio.run(run(args))
    except (JetStreamError, NatsError, OSError) as error:
        print(f"nats: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
