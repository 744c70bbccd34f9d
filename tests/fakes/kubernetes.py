"""A double of the Kubernetes API for Jobs: judges a Job strictly, then runs its command here.

A Job's one pod is a local process with the environment of its container; its log is a file. A
volume is a folder, and variables that name a path inside of its mount name that folder's instead.
The double does not schedule, pull images, run init containers or know access rights: what these do
only a cluster can prove.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Object = Mapping[str, Any]
VERSION = "1.30"  # of the cluster: the newest that every managed service still offers
TOKEN = "a-token"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_LONGEST = 63
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1.0} | {
    f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", start=1)
}


def amount(quantity: str | int | float) -> float:
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


# -- what an API server refuses


def faults(manifest: Object) -> list[str]:
    """What an API server would refuse of an object: by schema, and by rules no schema states."""
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return [*_name_faults(manifest["metadata"]), *_pod_faults(manifest)]


def _name_faults(metadata: Object) -> Iterator[str]:
    name = metadata.get("name", "")
    if not _LABEL.fullmatch(name) or len(name) > _LONGEST:
        yield f"{name!r} is not a DNS label"
    for key, value in metadata.get("labels", {}).items():
        if not _LABEL_NAME.fullmatch(key):
            yield f"{key!r} is not the name of a label"
        if not _LABEL_VALUE.fullmatch(value) or len(value) > _LONGEST:
            yield f"label {key}: {value!r} is not a label's value"


def _pod_faults(manifest: Object) -> Iterator[str]:
    template = manifest.get("spec", {}).get("template")
    if template is None:
        return
    yield from _name_faults({"name": "x", **template["metadata"]})
    pod = template["spec"]
    if manifest["kind"] == "Job" and pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "a Job's pods restart Never or OnFailure"
    volumes = [volume["name"] for volume in pod.get("volumes") or []]
    if len(set(volumes)) < len(volumes):
        yield f"volumes named twice: {volumes}"
    containers = [*(pod.get("initContainers") or []), *pod["containers"]]
    for container in containers:
        yield from _container_faults(container, volumes)


def _container_faults(container: Object, volumes: Sequence[str]) -> Iterator[str]:
    name = container["name"]
    if not _LABEL.fullmatch(name):
        yield f"container {name!r} is not a DNS label"
    mounts = container.get("volumeMounts") or []
    paths = [mount["mountPath"] for mount in mounts]
    if len(set(paths)) < len(paths):
        yield f"{name} mounts two volumes at one path: {paths}"
    yield from (
        f"{name} mounts {mount['name']}, which is no volume"
        for mount in mounts
        if mount["name"] not in volumes
    )
    variables = [variable["name"] for variable in container.get("env") or []]
    yield from (
        f"{variable!r} is not a variable's name"
        for variable in variables
        if not _VARIABLE.fullmatch(variable)
    )
    resources = container.get("resources") or {}
    limits = resources.get("limits", {})
    for kind, requested in resources.get("requests", {}).items():
        if kind in limits and amount(requested) > amount(limits[kind]):
            yield f"{name} requests more {kind} than its limit"


# -- what we want of our own pods


_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|_URL$", re.IGNORECASE)
_POINTS_ELSEWHERE = re.compile(r"_FILE$|_SECRET_NAME$|STEP_KEY$")


def policy_faults(manifest: Object) -> list[str]:
    """What our own rules refuse of a pod: root, no limits, a secret in plain sight."""
    pod = manifest["spec"]["template"]["spec"]
    found = []
    if manifest["kind"] == "Job" and pod["restartPolicy"] != "Never":
        found.append("a run's pod must not be started again behind Dagster's back")
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        security = (pod.get("securityContext") or {}) | (container.get("securityContext") or {})
        name = container["name"]
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            found.append(f"{name} may run as root")
        if security.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name} may gain privileges")
        if (security.get("capabilities") or {}).get("drop") != ["ALL"]:
            found.append(f"{name} keeps capabilities")
        limits = (container.get("resources") or {}).get("limits") or {}
        found += [f"{name} has no limit of {k}" for k in ("cpu", "memory") if k not in limits]
        found += [
            f"{name} holds {variable['name']} in plain sight"
            for variable in container.get("env") or []
            if _SECRET.search(variable["name"])
            and not _POINTS_ELSEWHERE.search(variable["name"])
            and variable.get("value") not in (None, "")
            and not str(variable["value"]).startswith("sm://")
        ]
    for volume in pod.get("volumes") or []:
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            found.append(f"volume {volume['name']} may fill the node's disk or memory")
    return found


# -- the cluster


@dataclass
class Pod:
    """The process of a Job."""

    job: dict[str, Any]
    name: str
    uid: str
    log: Path
    process: subprocess.Popen[bytes] | None
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    @property
    def phase(self) -> str:
        if self.process is None:
            return "Pending"
        return {None: "Running", 0: "Succeeded"}.get(self.exit_code, "Failed")

    def signal(self, number: int) -> None:
        if self.process is not None and self.exit_code is None:
            os.killpg(self.process.pid, number)


class Cluster:
    """One namespace. ``environment`` is what image and node give every process.

    ``config_maps`` and ``secrets`` are what ``envFrom`` and ``valueFrom`` may name; ``volumes`` the
    folders of volumes that are not emptyDir; ``wrong`` what was refused; ``jobs`` every Job ever
    accepted. Without ``runs``, pods stay Pending.
    """

    namespace = "mirror"

    def __init__(self, folder: Path, environment: Mapping[str, str], *, runs: bool = True) -> None:
        self.folder = folder
        self._environment = dict(environment)
        self._runs = runs
        self._pods: dict[str, Pod] = {}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.volumes: dict[str, Path] = {}
        self.jobs: list[dict[str, Any]] = []
        self.wrong: list[str] = []

    def close(self) -> None:
        for pod in self._pods.values():
            pod.signal(signal.SIGKILL)
            if pod.process is not None:
                pod.process.wait()

    def kill(self, job: str) -> None:
        """As a node that goes away, or memory that runs out."""
        self._pods[job].signal(signal.SIGKILL)

    @property
    def names(self) -> list[str]:
        """The Jobs that were accepted, in order."""
        return list(self._pods)

    def labelled(self, key: str, value: str) -> str:
        """The one Job with a label."""
        (found,) = [
            name
            for name, pod in self._pods.items()
            if pod.job["metadata"]["labels"].get(key) == value
        ]
        return found

    def pod(self, job: str) -> str:
        return self._pods[job].name

    def phase(self, job: str) -> str:
        return self._pods[job].phase

    def log(self, job: str) -> str:
        return self._pods[job].log.read_text(errors="replace")

    def wait(self, job: str, seconds: float = 60) -> str:
        """The phase of a Job's pod when it has ended."""
        deadline = time.monotonic() + seconds
        while self.phase(job) in ("Pending", "Running"):
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.05)
        return self.phase(job)

    def asgi(self) -> Starlette:
        batch = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        core = f"/api/v1/namespaces/{self.namespace}"
        return Starlette(
            routes=[
                Route(batch, self._create, methods=["POST"]),
                Route(batch, self._list_jobs, methods=["GET"]),
                Route(f"{batch}/{{name}}", self._delete_job, methods=["DELETE"]),
                Route(f"{batch}/{{name}}/status", self._read_job, methods=["GET"]),
                Route(f"{core}/pods", self._list_pods, methods=["GET"]),
                Route(f"{core}/pods/{{name}}", self._pod, methods=["GET", "DELETE"]),
                Route(f"{core}/pods/{{name}}/log", self._pod_log, methods=["GET"]),
                Route(f"{core}/events", self._events, methods=["GET"]),
            ]
        )

    # -- Jobs

    async def _create(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        job = await request.json()
        found = faults(job)
        if found:
            self.wrong += found
            return _status(422, "; ".join(found))
        name = job["metadata"]["name"]
        if name in self._pods:
            return _status(409, f"{name} is there already")
        job["metadata"]["uid"] = str(uuid.uuid4())
        self.jobs.append(job)
        self._pods[name] = self._start(job)
        return JSONResponse(job, 201)

    def _start(self, job: dict[str, Any]) -> Pod:
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        log = self.folder / f"{name}.log"
        log.touch()
        process = None
        if self._runs:
            pod = job["spec"]["template"]["spec"]
            container = pod["containers"][0]
            variables = _mounted(self._variables(container), self._folders(name, pod))
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    [*container.get("command", []), *container["args"]],
                    env=self._environment | {"HOSTNAME": name} | variables,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return Pod(job, name, str(uuid.uuid4()), log, process)

    def _variables(self, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            if "secretRef" in source:
                found |= self.secrets[source["secretRef"]["name"]]
            else:
                found |= self.config_maps[source["configMapRef"]["name"]]
        for variable in container.get("env") or []:
            if "valueFrom" in variable:
                key = variable["valueFrom"]["secretKeyRef"]
                found[variable["name"]] = self.secrets[key["name"]][key["key"]]
            else:
                found[variable["name"]] = variable.get("value", "")
        return found

    def _folders(self, name: str, pod: Object) -> dict[str, Path]:
        """The folder behind each path at which the pod's container mounts a volume."""
        folders = dict(self.volumes)
        for volume in pod.get("volumes") or []:
            if "emptyDir" in volume:
                folders[volume["name"]] = self.folder / f"{name}-{volume['name']}"
                folders[volume["name"]].mkdir()
        mounts = pod["containers"][0].get("volumeMounts") or []
        return {m["mountPath"]: folders[m["name"]] for m in mounts if m["name"] in folders}

    async def _list_jobs(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        name = request.query_params.get("fieldSelector", "").removeprefix("metadata.name=")
        listed = [_job(pod) for job, pod in self._pods.items() if name in ("", job)]
        return JSONResponse({"kind": "JobList", "apiVersion": "batch/v1", "items": listed})

    async def _read_job(self, request: Request) -> Response:
        pod = self._pods.get(request.path_params["name"])
        if refusal := self._unknown(request):
            return refusal
        return JSONResponse(_job(pod)) if pod else _status(404, "no such job")

    async def _delete_job(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        pod = self._pods.get(request.path_params["name"])
        if pod is None:
            return _status(404, "no such job")
        self._end(pod)
        return _status(200, "deleted")

    def _end(self, pod: Pod) -> None:
        """The pod is asked to end, and so are those of the Jobs that it owns."""
        pod.signal(signal.SIGTERM)
        for other in self._pods.values():
            owners = other.job["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == pod.uid for owner in owners):
                self._end(other)

    # -- pods

    async def _list_pods(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        query = request.query_params
        job = query.get("labelSelector", "").removeprefix("job-name=")
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        listed = [
            _pod(pod)
            for owner, pod in self._pods.items()
            if job in ("", owner) and name in ("", pod.name)
        ]
        return JSONResponse({"kind": "PodList", "apiVersion": "v1", "items": listed})

    async def _pod(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        pod = self._named(request)
        if pod is None:
            return _status(404, "no such pod")
        if request.method == "DELETE":
            self._end(pod)
        return JSONResponse(_pod(pod))

    async def _pod_log(self, request: Request) -> Response:
        if refusal := self._unknown(request):
            return refusal
        pod = self._named(request)
        return PlainTextResponse(pod.log.read_text()) if pod else _status(404, "no such pod")

    async def _events(self, request: Request) -> Response:
        empty = {"kind": "EventList", "apiVersion": "v1", "items": []}
        return self._unknown(request) or JSONResponse(empty)

    def _named(self, request: Request) -> Pod | None:
        name = request.path_params["name"]
        return next((pod for pod in self._pods.values() if pod.name == name), None)

    def _unknown(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and token == TOKEN
        return None if known else _status(401, "who is asking?")


def _mounted(variables: Mapping[str, str], folders: Mapping[str, Path]) -> dict[str, str]:
    """Variables with the folders in the place of the paths at which they are mounted."""
    found = dict(variables)
    for name, value in variables.items():
        for path, folder in folders.items():
            if value == path or value.startswith(f"{path}/"):
                found[name] = str(folder) + value.removeprefix(path)
    return found


def _job(pod: Pod) -> dict[str, Any]:
    counts = {"Pending": "active", "Running": "active", "Succeeded": "succeeded"}
    status = {counts.get(pod.phase, "failed"): 1, "startTime": pod.started}
    return pod.job | {"status": status}


def _pod(pod: Pod) -> dict[str, Any]:
    template = pod.job["spec"]["template"]
    labels = template["metadata"].get("labels", {}) | {"job-name": pod.job["metadata"]["name"]}
    state: dict[str, Any] = {"running": {"startedAt": pod.started}}
    if pod.exit_code is not None:
        state = {"terminated": {"exitCode": pod.exit_code, "reason": pod.phase}}
    container = template["spec"]["containers"][0]["name"]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": pod.name, "uid": pod.uid, "labels": labels},
        "spec": template["spec"],
        "status": {
            "phase": pod.phase,
            "containerStatuses": [
                {
                    "name": container,
                    "image": template["spec"]["containers"][0]["image"],
                    "imageID": "",
                    "ready": pod.phase == "Running",
                    "restartCount": 0,
                    "state": state if pod.process else {"waiting": {"reason": "Pending"}},
                }
            ],
        },
    }


def _status(code: int, message: str) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}
    return JSONResponse(body | {"status": "Success" if code < 400 else "Failure"}, code)


def image_environment(repository: Path) -> dict[str, str]:
    """What the image brings: this interpreter, and the package."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
        "HOME": os.environ.get("HOME", "/"),
    }
