"""Whether a server says that it serves: gRPC's own health service, asked once."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.client import calls, failures
from iyscheck.client.route import Route

SERVICE = "iyscheck.v1.ConsentCheckService"
FRESH = calls.FRESH
"""Whether the newest watermark is within the limit."""


def serves(route: Route, service: str, *, timeout_s: float) -> bool:
    """Ask for the health of a service, "" for the process. Raises ServiceError and SettingsError."""
    with route.channel(calls.CHANNEL_OPTIONS) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined] # the stubs lack it
        try:
            found = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s, metadata=route.metadata)
        except grpc.RpcError as error:
            raise failures.failure(error, target=route.target, timeout_s=timeout_s) from error
    return bool(found.status == health_pb2.HealthCheckResponse.SERVING)
