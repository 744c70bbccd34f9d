"""The addresses by which the nodes of a Kubernetes cluster reach the world, read over verified TLS.

How to reach a cluster and who we are there is what a pod or a kubeconfig file says; one that says
not to verify the cluster's certificate is refused.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from kubernetes import config  # type: ignore[import-untyped]
from kubernetes.client import (  # type: ignore[import-untyped]
    ApiClient,
    ApiException,
    Configuration,
    CoreV1Api,
)

from mirror_assets.delivery.cloud import CloudFault

_DOING = "listing the cluster's nodes"
_PAGE = 500
_CONNECT_AND_READ_SECONDS = (10, 30)


def external_addresses(
    *, context: str | None = None, kubeconfig: Path | None = None, page: int = _PAGE
) -> list[str]:
    """Every address of type ExternalIP, node by node, from all pages of ``page`` nodes.

    ``context`` is one of the kubeconfig file's; None means the cluster that this process runs in.
    Raises CloudFault.
    """
    found: list[str] = []
    with _edge(), ApiClient(_configuration(context, kubeconfig)) as client:
        nodes = CoreV1Api(client)
        token = None
        while True:
            listed = nodes.list_node(
                limit=page, _continue=token, _request_timeout=_CONNECT_AND_READ_SECONDS
            )
            found += [
                address.address
                for node in listed.items
                for address in (node.status and node.status.addresses) or ()
                if address.type == "ExternalIP"
            ]
            token = listed.metadata._continue
            if not token:
                return found


def _configuration(context: str | None, kubeconfig: Path | None) -> Configuration:
    found = Configuration()
    if context is None:
        config.load_incluster_config(client_configuration=found)
    else:
        config.load_kube_config(
            config_file=None if kubeconfig is None else str(kubeconfig),
            context=context,
            client_configuration=found,
            persist_config=False,
        )
    if not found.verify_ssl or not found.host.startswith("https://"):
        raise CloudFault(f"{_DOING} without verified TLS", "certificate")
    found.retries = 0
    return found


@contextmanager
def _edge() -> Iterator[None]:
    """The client's errors as ours, without their texts."""
    try:
        yield
    except ApiException as error:
        raise CloudFault(_DOING, "status", error.status) from None
    except urllib3.exceptions.HTTPError as error:
        raise CloudFault(_DOING, "certificate" if _untrusted(error) else "silence") from None
    except (config.ConfigException, OSError):
        raise CloudFault(_DOING, "identity") from None


def _untrusted(error: urllib3.exceptions.HTTPError) -> bool:
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    return isinstance(cause, urllib3.exceptions.SSLError) and any(
        isinstance(part, ssl.SSLCertVerificationError) for part in cause.args
    )
