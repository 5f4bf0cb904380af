"""Verifies the DKIM signatures of the mail on standard input with dkimpy. Arguments: selector and
public key record, in pairs. Prints one word per signature: pass or fail."""
import sys

import dkim

records = dict(zip(sys.argv[1::2], sys.argv[2::2]))


def lookup(name, timeout=5):
    selector = name.decode().split("._domainkey")[0]
    return records[selector].encode()


mail = sys.stdin.buffer.read()
count = mail.count(b"DKIM-Signature:")
for index in range(count):
    verifier = dkim.DKIM(mail)
    try:
        print("pass" if verifier.verify(idx=index, dnsfunc=lookup) else "fail")
    except dkim.DKIMException:
        print("fail")
