"""Which versions run."""

from importlib.metadata import version
from platform import python_version

from prometheus_client.core import GaugeMetricFamily, Metric

import iyscheck
from iyscheck.consent import RULE_VERSION
from iyscheck.kernel import Kernel
from iyscheck.keys import ADDRESS_FORM


def build_info(kernel: Kernel) -> Metric:
    """Show what runs."""
    labels = ("version", "kernel", "rule_version", "address_form", "grpc_version", "python_version")
    build = GaugeMetricFamily("consent_build_info", "Versions, as labels of a 1.", labels=labels)
    versions = (iyscheck.__version__, kernel.value, RULE_VERSION, ADDRESS_FORM, version("grpcio"), python_version())
    build.add_metric([str(each) for each in versions], 1)
    return build
