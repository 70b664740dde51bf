"""The cluster files are what Kubernetes, KubeRay and `ray up` read, and keep what a cluster must not lose.

Core objects are validated by kubernetes-validate, strictly: an unknown field is an error. KubeRay's schema is in no
package index, so kuberay_fields.json holds what the test needs of it, and says which version; the pods within are
validated as pods. `ray up`'s file goes through Ray's own validation.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.34"
OF_KUBERAY = "ray.io/v1"
KUBERAY = json.loads((Path(__file__).parent / "kuberay_fields.json").read_text())


def objects(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def only(name, kind):
    [found] = [value for value in objects(name) if value["kind"] == kind]
    return found


def pods():
    """Name and pod template of everything that runs."""
    for value in objects("mlflow.yaml"):
        if value["kind"] == "Deployment":
            yield f"mlflow.yaml {value['metadata']['name']}", value["spec"]["template"]
    cluster = only("raycluster.yaml", "RayCluster")["spec"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield f"workers {group['groupName']}", group["template"]


def complain_strictly(value):
    """What kubernetes-validate, as `kubectl --validate=strict`, says; None where it is content."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    try:
        kubernetes_validate.validate(value, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["mlflow.yaml", "raycluster.yaml"])
def test_core_objects_are_valid(name):
    core = [value for value in objects(name) if value["apiVersion"] != OF_KUBERAY]
    assert core
    assert {value["metadata"]["name"]: complain_strictly(value) for value in core} == {
        value["metadata"]["name"]: None for value in core
    }


def test_the_validator_finds_a_misspelt_field():
    deployment = next(value for value in objects("mlflow.yaml") if value["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    assert "portz" in complain_strictly(deployment)


def test_pods_of_the_ray_cluster_are_valid():
    of_cluster = [template for name, template in pods() if "mlflow" not in name]
    assert len(of_cluster) == 2
    for template in of_cluster:
        assert complain_strictly({"apiVersion": "v1", "kind": "Pod"} | template) is None


def refusals(value):
    """What KubeRay's schema refuses."""
    kind = {"$ref": f"#/$defs/{value['kind']}", "$defs": KUBERAY["$defs"]}
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(kind).iter_errors(value)]


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_kuberay_takes_its_objects(kind):
    value = only(f"{kind.lower()}.yaml", kind)
    assert value["apiVersion"] == OF_KUBERAY
    assert refusals(value) == []
    assert complain_strictly({"apiVersion": "v1", "kind": "ConfigMap", "metadata": value["metadata"]}) is None


WRONG = [
    ("RayCluster", "autoscalerOptions.idleTimeoutSeconds", "300", "'300' is not of type 'integer'"),
    ("RayCluster", "autoscalerOptions.upscalingMode", "Defalt", "'Defalt' is not one of ['Default', 'Aggressive',"),
    ("RayCluster", "autoscalerOptions.version", "v3", "'v3' is not one of ['v1', 'v2']"),
    ("RayCluster", "autoscalerOptions.idleTimeout", 300, "'idleTimeout' was unexpected"),
    ("RayCluster", "authOptions.mode", "tokn", "'tokn' is not one of ['disabled', 'token']"),
    ("RayCluster", "authOption", {"mode": "token"}, "'authOption' was unexpected"),
    ("RayCluster", "enableInTreeAutoscaling", "true", "'true' is not of type 'boolean'"),
    ("RayCluster", "gcsFaultToleranceOptions", {"backend": "etcd"}, "'etcd' is not one of ['redis', 'rocksdb']"),
    ("RayCluster", "rayVersion", 2.6, "2.6 is not of type 'string'"),
    ("RayCluster", "upgradeStrategy", {"type": "Rolling"}, "'Rolling' is not one of ['Recreate', 'None']"),
    ("RayCluster", "headGroupSpec", {}, "'template' is a required property"),
    ("RayCluster", "headGroupSpec.rayStartParams.num-gpus", 0, "0 is not of type 'string'"),
    ("RayCluster", "headGroupSpec.template.metdata", {}, "'metdata' was unexpected"),
    ("RayCluster", "workerGroupSpecs.0.maxReplica", 8, "'maxReplica' was unexpected"),
    ("RayCluster", "workerGroupSpecs.0.minReplicas", "1", "'1' is not of type 'integer'"),
    ("RayCluster", "workerGroupSpecs.0.rayStartParams", None, "None is not of type 'object'"),
    ("RayJob", "clusterSelector", "ccim-ray", "'ccim-ray' is not of type 'object'"),
    ("RayJob", "entrypoint", ["python"], "['python'] is not of type 'string'"),
    ("RayJob", "entryPoint", "python", "'entryPoint' was unexpected"),
    ("RayJob", "deletionStrategy", {"onFailure": {"policy": "Delete"}}, "'Delete' is not one of ['DeleteCluster',"),
    ("RayJob", "rayClusterSpec", {}, "'headGroupSpec' is a required property"),
]


@pytest.mark.parametrize(("kind", "path", "wrong", "said"), WRONG, ids=[f"{case[1]}={case[2]}" for case in WRONG])
def test_kuberay_refuses_what_is_misspelt_or_of_a_wrong_type(kind, path, wrong, said):
    value = only(f"{kind.lower()}.yaml", kind)
    *above, last = path.split(".")
    at = value["spec"]
    for key in above:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = wrong
    [refusal] = refusals(value)
    assert said in refusal


def test_kuberays_schema_is_one_and_lets_no_unknown_field_pass():
    jsonschema.Draft202012Validator.check_schema(KUBERAY)
    closed, rest = 0, list(KUBERAY["$defs"].values())
    while rest:
        node = rest.pop()
        if "properties" in node:
            assert node["additionalProperties"] is False
            closed += 1
        rest += node.get("properties", {}).values()
        rest += [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
    assert closed > 100


def test_a_group_of_workers_starts_within_its_bounds():
    for group in only("raycluster.yaml", "RayCluster")["spec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_ray_job_runs_a_job_of_ours_on_that_cluster():
    job = only("rayjob.yaml", "RayJob")
    assert job["spec"]["clusterSelector"] == {
        "ray.io/cluster": only("raycluster.yaml", "RayCluster")["metadata"]["name"]
    }
    script = re.search(r"/opt/ccim_ray/(jobs/\w+\.py)", job["spec"]["entrypoint"])[1]
    assert (ROOT / script).is_file()


def test_nobody_joins_the_cluster_without_its_token():
    spec = only("raycluster.yaml", "RayCluster")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert "RAY_AUTH_MODE" not in (DEPLOY / "raycluster.yaml").read_text()  # which would override it
    for command in ray_up()["head_start_ray_commands"] + ray_up()["worker_start_ray_commands"]:
        assert "ray start" not in command or "RAY_AUTH_MODE=token" in command
    assert "RAY_AUTH_MODE=token" in (DEPLOY / "slurm.sh").read_text()


def test_every_node_of_the_cluster_sees_the_storage():
    claims = {value["metadata"]["name"]: value for value in objects("raycluster.yaml") if "Claim" in value["kind"]}
    for name, template in pods():
        if "mlflow" in name:
            continue
        [container] = template["spec"]["containers"]
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        [(volume, claim)] = [
            (volume["name"], volume["persistentVolumeClaim"]["claimName"])
            for volume in template["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert environment["CCIM_RAY_STORAGE"].startswith(mounts[volume] + "/")
        assert claims[claim]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_workers_have_a_gpu_and_the_head_has_none():
    spec = only("raycluster.yaml", "RayCluster")["spec"]
    [worker] = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    [head] = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert spec["enableInTreeAutoscaling"]


def test_passwords_come_from_secrets():
    passwords = 0
    for _, template in pods():
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
            for entry in container.get("env", []):
                if re.search("PASSWORD|SECRET|ACCESS_KEY", entry["name"]):
                    passwords += 1
                    assert set(entry) == {"name", "valueFrom"}
                    assert entry["valueFrom"]["secretKeyRef"]["name"] == "mlflow-secrets"
    assert passwords == 8
    assert not [
        value for name in ("mlflow.yaml", "raycluster.yaml") for value in objects(name) if value["kind"] == "Secret"
    ]


def test_services_find_their_deployments_and_addresses_their_services():
    deployments = [value for value in objects("mlflow.yaml") if value["kind"] == "Deployment"]
    services = {
        value["metadata"]["name"]: value["spec"] for value in objects("mlflow.yaml") if value["kind"] == "Service"
    }
    for name, service in services.items():
        [serving] = [d for d in deployments if d["spec"]["template"]["metadata"]["labels"] == service["selector"]]
        ports = [
            port["containerPort"] for c in serving["spec"]["template"]["spec"]["containers"] for port in c["ports"]
        ]
        assert [port["port"] for port in service["ports"]] == ports, name
    text = (DEPLOY / "mlflow.yaml").read_text() + (DEPLOY / "raycluster.yaml").read_text()
    addresses = set(re.findall(r"(?://|@)(mlflow[\w-]*):(\d+)", text))
    assert ("mlflow-postgres", "5432") in addresses
    assert all(int(port) == services[host]["ports"][0]["port"] for host, port in addresses)


def test_containers_of_ours_do_not_run_as_root():
    ours = 0
    for _, template in pods():
        containers = template["spec"]["containers"]
        if any("ccim-ray" in container["image"] for container in containers):
            ours += 1
            assert template["spec"]["securityContext"]["runAsNonRoot"] is True
            assert template["spec"]["securityContext"]["runAsUser"] == 10001
    assert ours == 3


def test_all_say_the_ray_version_that_is_installed():
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert only("raycluster.yaml", "RayCluster")["spec"]["rayVersion"] == pinned


def ray_up():
    return yaml.safe_load((DEPLOY / "ray_up.yaml").read_text())


def test_ray_up_takes_its_file():
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    filled = fillout_defaults(ray_up())
    validate_config(filled)
    # Ray's defaults would install a nightly Ray over ours.
    assert filled["setup_commands"] == filled["head_setup_commands"] == filled["worker_setup_commands"] == []
    with pytest.raises(Exception, match="max_workrs"):
        validate_config(filled | {"max_workrs": 3})


def test_ray_up_brings_the_token_to_where_the_user_of_the_image_looks_for_it():
    user = re.search(r"useradd .*--uid (\d+) (\w+)", (DEPLOY / "Dockerfile").read_text())
    assert ray_up()["file_mounts"] == {f"/home/{user[2]}/.ray/auth_token": "~/.ray/auth_token"}
    assert f"sudo chown {user[1]} /shared" in ray_up()["initialization_commands"]


def test_the_image_installs_what_pyproject_asks_for():
    steps = (DEPLOY / "Dockerfile").read_text()
    assert "['project']['dependencies']" in steps
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "--constraint /opt/ccim_ray/constraints.txt" in steps
    assert re.search(r"^USER ray$", steps, re.MULTILINE)


@pytest.mark.slow
def test_mlflow_answers_to_the_name_of_its_service_and_to_no_other(tmp_path):
    """The server's own command line, with files in place of PostgreSQL and the object store."""
    deployment = next(
        value
        for value in objects("mlflow.yaml")
        if value["kind"] == "Deployment" and value["metadata"]["name"] == "mlflow"
    )
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [command] = container["args"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, replaced = re.subn(r'"postgresql://[^"]*"', f"sqlite:///{tmp_path}/mlflow.db", command)
    command = command.replace("--host 0.0.0.0 --port 5000", f"--host 127.0.0.1 --port {port}")
    command = command.replace("s3://mlflow", str(tmp_path))
    assert replaced
    server = subprocess.Popen(
        [*container["command"], command],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def status(host, path="/health"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    probe = container["readinessProbe"]["httpGet"]
    try:
        deadline = time.monotonic() + 180
        while status(probe["httpHeaders"][0]["value"], probe["path"]) != 200:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        api = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        answers = {host: status(host, api) for host in ("mlflow:5000", "localhost:5000", "elsewhere.example.org")}
        assert answers == {"mlflow:5000": 200, "localhost:5000": 200, "elsewhere.example.org": 403}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
