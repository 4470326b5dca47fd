#!/usr/bin/env python3
"""Reads all events up to a position twice, with public libraries alone, and prints them as JSON.

`nats URL POSITION` takes them from NATS, and has the CloudEvents library read each message and say
whether it is an event. `sse URL POSITION` takes them as server-sent events, over two connections: the
second goes on after the last one of the first.
"""

import asyncio
import json
import sys
import urllib.request

import nats
import sseclient
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event
from cloudevents.core.bindings.http import to_structured_event
from nats.js.api import ConsumerConfig, DeliverPolicy

# Seconds that anything may take.
PATIENCE = 30


def cloud_event(message):
    """The event of a message. The library raises where an attribute is missing or malformed."""
    event = from_binary_event(HTTPMessage(dict(message.headers), message.data))
    again = from_structured_event(to_structured_event(event))
    assert (again.get_attributes(), again.get_data()) == (event.get_attributes(), event.get_data())
    return {
        "id": event.get_id(),
        "source": event.get_source(),
        "type": event.get_type(),
        "specversion": event.get_specversion(),
        "subject": event.get_subject(),
        "time": event.get_time().isoformat(),
        "position": int(event.get_extension("position")),
        "data": event.get_data(),
    }


async def from_nats(url, position):
    """All events of the stream, by an ordered consumer."""
    connection = await nats.connect(url)
    stream = connection.jetstream()
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    subscription = await stream.subscribe(
        "wonder.events.>", stream="WONDER_EVENTS", ordered_consumer=True, config=config
    )
    events = []
    while not events or events[-1]["position"] < position:
        events.append(cloud_event(await subscription.next_msg(timeout=PATIENCE)))
    await connection.close()
    return events


def server_sent(url, after):
    """Server-sent events after one, which are those of the journal."""
    headers = {"accept": "text/event-stream"}
    if after:
        headers["last-event-id"] = after
    response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE)
    client = sseclient.SSEClient(response)
    for event in client.events():
        if event.id:
            yield {"id": event.id, "event": event.event, "data": json.loads(event.data)}


def from_sse(url, position):
    """All events, half of them over a second connection."""
    events = []
    for until in (position // 2, position):
        for event in server_sent(url, events[-1]["id"] if events else None):
            events.append(event)
            if event["data"]["position"] >= until:
                break
    return events


def main():
    way, url, position = sys.argv[1], sys.argv[2], int(sys.argv[3])
    events = asyncio.run(from_nats(url, position)) if way == "nats" else from_sse(url, position)
    json.dump(events, sys.stdout)


main()
