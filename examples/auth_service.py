"""An auth service that talks to Watchword by events: asks for a code, reads the answer, checks
what the person typed. Needs pika (pip install pika).

  AMQP_URL=amqp://portal:secret@127.0.0.1:5672/%2f \\
  WATCHWORD_URL=http://127.0.0.1:8080 WATCHWORD_KEY=… \\
  python examples/auth_service.py jira sms +4915112345678

The broker user (here portal) must stand in broker_users of the service (here jira).
"""

import datetime
import json
import os
import sys
import urllib.request
import uuid

import pika

service, channel_name, recipient = sys.argv[1:4]
parameters = pika.URLParameters(os.environ["AMQP_URL"])
connection = pika.BlockingConnection(parameters)
channel = connection.channel()
channel.confirm_delivery()

# Answers go to a queue of our own, bound before we ask. Its name begins with the user's, which is what the
# user's permissions allow (watchword topology --permissions).
answers = f"{parameters.credentials.username}.answers.{uuid.uuid4()}"
channel.queue_declare(answers, exclusive=True)
channel.queue_bind(answers, "watchword.events", routing_key=f"verification.updated.{service}")

# The event's id is its idempotency key: publishing it again opens nothing twice.
request_id = str(uuid.uuid4())
event = {
    "specversion": "1.0",
    "id": request_id,
    "source": "/portal",
    "type": "watchword.otp.requested.v1",
    "time": datetime.datetime.now(datetime.timezone.utc).isoformat(),
    "datacontenttype": "application/json",
    "data": {"channel": channel_name, "to": recipient, "purpose": "login"},
}
channel.basic_publish(
    "watchword.requests",
    f"requests.{service}",
    json.dumps(event).encode(),
    pika.BasicProperties(
        content_type="application/cloudevents+json",
        message_id=request_id,
        delivery_mode=2,
        user_id=parameters.credentials.username,  # the broker vouches for it
    ),
    mandatory=True,
)

verification = None
for method, _, body in channel.consume(answers, inactivity_timeout=20):
    if method is None:
        sys.exit("no answer")
    channel.basic_ack(method.delivery_tag)
    answer = json.loads(body)["data"]
    if answer["request_id"] == request_id:
        if "refusal" in answer:
            sys.exit(f"refused: {answer['refusal']['code']}: {answer['refusal']['detail']}")
        verification = answer["verification_id"]
        break
connection.close()
print(f"verification {verification} for {answer['to']}", flush=True)

check = urllib.request.Request(
    f"{os.environ['WATCHWORD_URL']}/v1/verifications/{verification}/check",
    data=json.dumps({"code": input("code: ").strip()}).encode(),
    headers={"Authorization": f"Bearer {os.environ['WATCHWORD_KEY']}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(check) as response:
    result = json.load(response)
print(result["status"])
sys.exit(0 if result["valid"] else 1)
