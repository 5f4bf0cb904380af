"""Signs receipts as the vendors do, and verifies them with the vendors' own libraries.

Reads one JSON request per line and answers one JSON line: the signed headers that the library accepted.
"""
import base64
import hashlib
import json
import sys
import time

import jwt
import telnyx
from messagebird.request_validator import RequestValidator as MessageBird
from nacl.signing import SigningKey
from twilio.request_validator import RequestValidator as Twilio

KEY = SigningKey(b"k" * 32)


def twilio(request):
    validator = Twilio(request["secret"])
    fields = dict(request["form"])
    signature = validator.compute_signature(request["url"], fields)
    assert validator.validate(request["url"], fields, signature)
    return {"x-twilio-signature": signature}


def messagebird(request):
    now = int(time.time())
    claims = {
        "iss": "MessageBird", "nbf": now - 1, "exp": now + 60, "jti": "j",
        "url_hash": hashlib.sha256(request["url"].encode()).hexdigest(),
    }
    token = jwt.encode(claims, request["secret"], algorithm="HS256")
    MessageBird(request["secret"]).validate_signature(token, request["url"], b"")
    return {"messagebird-signature-jwt": token}


def vendor_telnyx(request):
    telnyx.public_key = base64.b64encode(bytes(KEY.verify_key)).decode()
    stamp = str(int(time.time()))
    signed = KEY.sign(f"{stamp}|{request['body']}".encode()).signature
    signature = base64.b64encode(signed).decode()
    telnyx.Webhook.construct_event(request["body"], signature, stamp, 300)
    return {
        "telnyx-signature-ed25519": signature, "telnyx-timestamp": stamp,
        "public-key": telnyx.public_key,
    }


VENDORS = {"twilio": twilio, "messagebird": messagebird, "telnyx": vendor_telnyx}

for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(VENDORS[request["vendor"]](request)), flush=True)
