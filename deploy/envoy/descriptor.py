"""Writes the contract as Envoy's transcoder reads it: python deploy/envoy/descriptor.py > iyscheck.pb.

With the details of errors (google/rpc): without them Envoy answers errors with an empty body. To be run by the Python
that has iyscheck, so that the descriptor is that of the installed contract.
"""

import sys

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types

from iyscheck.v1 import consent_check_pb2


def descriptor() -> bytes:
    """Return all files that the contract and its errors need, each after those that it imports."""
    files: dict[str, FileDescriptorProto] = {}
    for each in (consent_check_pb2, status_pb2, error_details_pb2):
        _add(each.DESCRIPTOR, files)
    return FileDescriptorSet(file=files.values()).SerializeToString(deterministic=True)


def _add(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    for needed in file.dependencies:
        _add(needed, files)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    files[file.name] = proto


if __name__ == "__main__":
    sys.stdout.buffer.write(descriptor())
