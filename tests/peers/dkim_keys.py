"""Makes an RSA and an Ed25519 key: prints JSON with their PKCS#8 PEM and their DNS records."""
import base64
import json

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa


def pem(key):
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()


def b64(data):
    return base64.b64encode(data).decode()


weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
strong = rsa.generate_private_key(public_exponent=65537, key_size=2048)
small = ed25519.Ed25519PrivateKey.generate()
spki = strong.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
raw = small.public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
print(json.dumps({
    "weak": pem(weak), "rsa": pem(strong), "ed25519": pem(small),
    "rsa_record": f"v=DKIM1; k=rsa; p={b64(spki)}", "ed25519_record": f"v=DKIM1; k=ed25519; p={b64(raw)}",
}))
