"""Starts a moto server that verifies signatures, creates a user with a key, prints
`<port> <access key id> <secret>` and serves until its standard input closes."""
import os
import socket
import subprocess
import sys
import time

import boto3

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
# Four calls need no permission: creating the user, its key and its policy, and one to see that the server is up.
environment = dict(os.environ, INITIAL_NO_AUTH_ACTION_COUNT="4")
server = subprocess.Popen(
    [os.path.join(os.path.dirname(sys.executable), "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
    env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    iam = boto3.client(
        "iam", endpoint_url=f"http://127.0.0.1:{port}", region_name="eu-central-1",
        aws_access_key_id="any", aws_secret_access_key="any",
    )
    iam.create_user(UserName="watchword")
    key = iam.create_access_key(UserName="watchword")["AccessKey"]
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sns:*","Resource":"*"}]}'
    iam.put_user_policy(UserName="watchword", PolicyName="sns", PolicyDocument=policy)
    iam.list_users()
    print(port, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
    sys.stdin.read()
finally:
    server.terminate()
    server.wait()
