"""A Lambda function that uploads what its event says, and then meets the fate that its event says.

Without an SDK, so that it is known to the byte what was uploaded, and when.
"""

import os
import time
import urllib.request


def handler(event, context):
    if event["upload"]:
        upload = urllib.request.Request(
            "http://localhost:4040/ingest?name=e2e.fate",
            data=event["upload"].encode(),
            method="POST",
        )
        with urllib.request.urlopen(upload) as answer:
            assert answer.status == 200, answer.status
    if event["fate"] == "hang":
        time.sleep(60)
    if event["fate"] == "crash":
        os._exit(7)
    return {"uploaded": event["upload"]}
