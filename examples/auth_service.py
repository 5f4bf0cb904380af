"""An auth service that uses Watchword by events: requests a code, reads the answer, and checks the
typed code. Needs pika (pip install pika).

  AMQP_URL=amqp://portal:secret@127.0.0.1:5672/%2f \\
  AMQP_READER_URL=amqp://portal-reader:secret@127.0.0.1:5672/%2f \\
  WATCHWORD_URL=http://127.0.0.1:8080 WATCHWORD_KEY=… \\
  python examples/auth_service.py example sms +4915112345678

The user of AMQP_URL publishes. It must be one of the broker_users of the service (here example), and
the code is sent for the service of that user. The user of AMQP_READER_URL reads the answer.
`watchword topology --permissions` prints the permissions of both.

WATCHWORD_URL is the address of the verifier, or of `watchword run issuer verifier`.
"""

import datetime
import json
import os
import sys
import urllib.error
import urllib.request
import uuid

import pika

service, channel_name, recipient = sys.argv[1:4]
parameters = pika.URLParameters(os.environ["AMQP_URL"])
publisher = pika.BlockingConnection(parameters)
requests = publisher.channel()
requests.confirm_delivery()

# Bind the answer queue before the request, so that no answer is lost. The permissions let the reader
# declare only names that begin with its user name.
reader_parameters = pika.URLParameters(os.environ["AMQP_READER_URL"])
reader = pika.BlockingConnection(reader_parameters)
events = reader.channel()
answers = f"{reader_parameters.credentials.username}.answers.{uuid.uuid4()}"
try:
    events.queue_declare(answers, exclusive=True)
    events.queue_bind(answers, "watchword.events", routing_key=f"verification.updated.{service}")
except pika.exceptions.ChannelClosedByBroker as refusal:
    sys.exit(f"the broker refused the queue: {refusal.reply_text}")

# The event's id is its idempotency key: publishing it again opens no second verification.
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
requests.basic_publish(
    "watchword.requests",
    f"requests.{service}",
    json.dumps(event).encode(),
    pika.BasicProperties(
        content_type="application/cloudevents+json",
        message_id=request_id,
        delivery_mode=2,
        user_id=parameters.credentials.username,  # validated by the broker
    ),
    mandatory=True,
)

verification = None
for method, _, body in events.consume(answers, inactivity_timeout=20):
    if method is None:
        sys.exit(f"no answer for the service {service}: is {parameters.credentials.username} one of its broker_users, "
                 "and does an issuer run?")
    events.basic_ack(method.delivery_tag)
    answer = json.loads(body)["data"]
    if answer["request_id"] == request_id:
        if "refusal" in answer:
            sys.exit(f"refused: {answer['refusal']['code']}: {answer['refusal']['detail']}")
        verification = answer["verification_id"]
        break
publisher.close()
reader.close()
print(f"verification {verification} for {answer['to']}", flush=True)

# Keep the id on the server: a browser that chose it could present another person's verification.
check = urllib.request.Request(
    f"{os.environ['WATCHWORD_URL']}/v1/verifications/{verification}/check",
    data=json.dumps({"code": input("code: ").strip()}).encode(),
    headers={"Authorization": f"Bearer {os.environ['WATCHWORD_KEY']}", "Content-Type": "application/json"},
)
try:
    with urllib.request.urlopen(check) as response:
        result = json.load(response)
except urllib.error.HTTPError as refusal:
    problem = json.load(refusal)
    sys.exit(f"the check was refused: {refusal.code} {problem['code']}: {problem['detail']}")
except urllib.error.URLError as error:
    sys.exit(f"the verifier at WATCHWORD_URL cannot be reached: {error.reason}")
print(result["status"])
sys.exit(0 if result["valid"] else 1)
