"""The files of docker/ agree with each other and with the recipes."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from autorater.audit.arguments import parse_arguments

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
ENTRYPOINT = (FOLDER / "entrypoint.sh").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
CLAIM, SERVICE, JOB = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
POD = JOB["spec"]["template"]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_recipes_that_are_named_exist(path):
    named = re.findall(r"recipes/[\w/.-]+\.(?:py|yaml)", path.read_text())
    missing = sorted({name for name in named if not (ROOT / name).exists()})
    assert not missing


def test_every_command_of_the_usage_is_known():
    commands = re.findall(r"^  (\w+)  +(?:recipes/(\w+)\.py|what is installed)", ENTRYPOINT, re.MULTILINE)
    assert len(commands) == 9
    cases = re.findall(r"^    ([\w| -]+)\)", ENTRYPOINT[ENTRYPOINT.index("case $command") :], re.MULTILINE)
    known = {name for case in cases for name in case.split(" | ")}
    assert {command for command, _ in commands} <= known


def test_versions_has_the_name_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'for package in ("{project["name"]}", ' in ENTRYPOINT


def test_configs_that_the_entrypoint_chooses_exist():
    names = re.findall(r"name=(\w+)$", ENTRYPOINT, re.MULTILINE)
    assert len(names) == 3
    for name in names:
        assert (ROOT / "recipes" / "accelerate" / f"{name}.yaml").exists(), name


def test_nodes_of_the_kubernetes_job_find_each_other():
    (container,) = POD["spec"]["containers"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert int(environment["NNODES"]["value"]) == JOB["spec"]["completions"] == JOB["spec"]["parallelism"]
    assert environment["MASTER_ADDR"]["value"] == f"{JOB['metadata']['name']}-0.{SERVICE['metadata']['name']}"
    assert POD["spec"]["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["selector"].items() <= POD["metadata"]["labels"].items()
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert volumes["volume"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]


def test_all_run_as_the_user_of_the_image():
    (user,) = set(re.findall(r"^USER (\d+):\1$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE))
    security = POD["spec"]["securityContext"]
    assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}


@pytest.mark.parametrize(
    "command",
    [
        POD["spec"]["containers"][0]["args"],
        COMPOSE["services"]["trainer"]["command"],
        (FOLDER / "slurm.sbatch").read_text().split(),
    ],
    ids=["kubernetes", "compose", "slurm"],
)
def test_every_cluster_saves_and_resumes(command):
    launched = " ".join(command).replace("=", " ")
    assert "train " in launched
    assert "--save_strategy steps" in launched
    assert "--resume_from_checkpoint auto" in launched
    assert "--config recipes/configs/" in launched, "the defaults do not fit a large model on its GPUs"


def test_the_build_sees_what_the_dockerfile_copies_and_no_more():
    ignored, *sent = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert {f"!{path}" for line in copied for path in line.split()} == {line for line in sent if line[0] == "!"}


def test_trainer_and_server_of_the_compose_file_are_of_one_version():
    server, trainer = COMPOSE["services"]["vllm"], COMPOSE["services"]["trainer"]
    version = server["image"].rsplit(":v", 1)[1]
    assert trainer["build"]["args"]["PACKAGES"] == f"vllm=={version}"
    port = next(argument for argument in server["command"] if argument.startswith("--port=")).split("=")[1]
    assert f"--vllm_server_base_url=http://vllm:{port}" in trainer["command"]


def test_client_and_server_of_a_judge_agree():
    compose = yaml.safe_load((FOLDER / "compose.judge.yaml").read_text())
    server, client = compose["services"]["server"], compose["services"]["client"]
    name = next(a for a in server["command"] if a.startswith("--served-model-name=")).split("=")[1]
    port = next(a for a in server["command"] if a.startswith("--port=")).split("=")[1]
    command, *options = client["command"]
    assert command == "audit"
    args = parse_arguments(options, "audit")
    assert (args.judge, args.base_url) == (f"endpoint:{name}", f"http://server:{port}/v1")
    assert server["command"][0] == args.judge_format
    assert server["volumes"][0] in client["volumes"], "both see the folder of the judge"
