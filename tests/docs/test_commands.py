"""Every shell command of the README and the docs is run: by a test that is named, here, or not, with the reason.

A command that is new, or that no page holds any more, fails the first test.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from job_runs import job_environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PROGRAMS = "make|python3?|pip|source|export|ray|docker|kubectl|helm|sbatch|ssh|scp|for|mlflow"
COMMAND = re.compile(rf"(\$ |\w+=\S+ )*(\.venv/bin/)?({PROGRAMS})\b")

SWEEP = "tests/pipeline/test_sweep_job.py::"
CLUSTER = "tests/deploy/test_submission.py::"
PLUG_IN = "tests/test_plug_in_example.py::"
CHAIN = "tests/pipeline/test_real_formats_chain.py::test_from_a_folder_to_the_table_of_baselines"

JQ = """jq -c 'select(.event == "trial" and .state == "done") | [.setting, .seed, .metrics]'"""

BY_A_TEST = {
    # The job's side; jq only shows what it says.
    f"python jobs/sweep_dict_size.py --log json | {JQ}": "tests/pipeline/test_progress_of_jobs.py::"
    "test_events_tell_a_program_what_happens",
    "make sweep": SWEEP + "test_the_first_command_works",  # its job, smaller
    "make smoke": SWEEP + "test_the_first_command_works",
    "export RAY_AUTH_MODE=token": CLUSTER + "test_a_submitted_sweep_brings_the_package_and_nothing_else",
    "ray get-auth-token --generate > /dev/null": CLUSTER + "test_nobody_submits_without_the_token",
    "RAY_JOB_STOP_WAIT_TIME_S=60 ray start --head": CLUSTER + "test_a_stopped_job_saves_and_the_same_job_goes_on",
    "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265": CLUSTER
    + "test_a_submitted_sweep_brings_the_package_and_nothing_else",
    "ray job submit --working-dir . -- python jobs/sweep_dict_size.py --preset smoke": CLUSTER
    + "test_a_submitted_sweep_brings_the_package_and_nothing_else",
    "ray job submit --working-dir . -- python jobs/sweep_dict_size.py": CLUSTER
    + "test_a_submitted_sweep_brings_the_package_and_nothing_else",
    "ray job submit --working-dir . -- python jobs/sweep_dict_size.py --max-concurrent 8": CLUSTER
    + "test_a_submitted_sweep_brings_the_package_and_nothing_else",
    "ray job submit --working-dir . -- python jobs/sweep_dict_size.py --plan --price-per-hour 2.50": CLUSTER
    + "test_a_submitted_plan_is_of_the_cluster",
    "ray job stop ID": CLUSTER + "test_a_stopped_job_saves_and_the_same_job_goes_on",
    "RAY_AUTH_MODE=token ray start --address machine1:6379": "tests/deploy/test_slurm_script.py::"
    "test_a_job_runs_on_both_nodes_and_leaves_nothing_behind",
    "sbatch deploy/slurm.sh jobs/sweep_dict_size.py": "tests/deploy/test_slurm_script.py::"
    "test_a_job_runs_on_both_nodes_and_leaves_nothing_behind",
    "python docs/make_findings.py runs": "tests/docs/test_make_findings.py::"
    "test_its_tables_are_those_of_the_logged_sweeps",
    "python jobs/run_ablations.py": "tests/pipeline/test_ablations_job.py::"
    "test_every_setting_of_the_space_is_in_the_table",
    "python jobs/inspect_models.py": "tests/test_inspect_models_job.py::test_numbers_files_and_artefacts",
    "python jobs/report.py": "tests/test_report_job.py::test_a_report_needs_nothing_but_the_database",
    "python jobs/report.py --experiment confounded_scenes/deconfounders": "tests/test_report_job.py::"
    "test_a_report_needs_nothing_but_the_database",
    "python jobs/predict.py --out predictions": "tests/pipeline/test_predict_job.py::"
    "test_a_trained_model_gives_its_test_pictures_the_scores_of_its_trial",
    "python jobs/predict.py --model models:/confounded_scenes.dict_size.0b6b54ff2a1a9dc8@best": "tests/pipeline/"
    "test_predict_job.py::test_a_trained_model_gives_its_test_pictures_the_scores_of_its_trial",
    "pip install -e docs/examples/my_models": PLUG_IN + "test_every_command_of_the_text_is_tried_here",
    "CCIM_MY_DATA=DIR python -m pytest docs/examples/my_models": PLUG_IN
    + "test_the_examples_own_tests_pass_and_can_fail",
    "python jobs/compare_baselines.py --baselines emot_net my_model": PLUG_IN
    + "test_my_model_is_compared_with_emot_net",
    "python jobs/train.py --baseline my_model --dataset my_dataset --data-root DIR --stand-ins"
    " --pose-detector none": PLUG_IN + "test_my_model_trains_on_my_dataset",
    "python jobs/train.py --baseline my_model --dataset my_dataset --data-root DIR --stand-ins --pose-detector none"
    " --trainable all": PLUG_IN + "test_my_model_trains_on_my_dataset",
    "python jobs/sweep_dict_size.py --baseline my_model": PLUG_IN + "test_my_model_over_dictionary_sizes",
    "docker build -f deploy/Dockerfile -t registry.example.org/ccim-ray:gpu .": "tests/deploy/test_image.py::"
    "test_the_steps_make_an_environment_that_runs_a_job",
}

DATA = "needs a real dataset or published weights, which may not be shipped"
KUBERNETES = "needs Kubernetes; the manifests are validated in tests/deploy/test_manifests.py"
ENGINE = "needs an engine and a registry"
CPU_IMAGE = (
    "needs an engine, and PyTorch's own index for the torch without CUDA, which not every machine reaches; "
    "tests/deploy/test_image.py runs the steps of DEVICE=gpu"
)
MACHINES = "needs other machines"
AWS = "needs an account; the file is validated in tests/deploy/test_manifests.py"
HOURS = "takes hours; the job in preset smoke is run by tests/deconfounders/test_deconfounder_trials.py"
SHELL = "sets up the shell of the commands that follow"

NOT_HERE = {
    "ssh -N -L 8265:127.0.0.1:8265 -L 5000:127.0.0.1:5000 you@machine": "needs another machine",
    "make install": "is what this test suite runs in",
    "source .venv/bin/activate": SHELL,
    "python jobs/check_dataset.py --dataset emotic --data-root /data/emotic": DATA,
    "python jobs/sweep_dict_size.py --dataset emotic --data-root /data/emotic --plan": DATA,
    "python jobs/import_weights.py resnet152_places365-f928166e5c.pth --arch resnet152 --weights places365": DATA,
    "python jobs/import_weights.py resnet18_places365.pth.tar --arch resnet18 --weights places365": DATA,
    "sbatch --nodes 4 deploy/slurm.sh jobs/compare_baselines.py --dataset emotic --data-root /data/emotic": DATA,
    "pip install boto3": AWS,
    "ray up deploy/ray_up.yaml": AWS,
    "ray dashboard deploy/ray_up.yaml &": AWS,
    "ray rsync-down deploy/ray_up.yaml /shared/runs/sweeps/ sweeps/": AWS,
    "ray rsync-up deploy/ray_up.yaml /data/emotic/ /shared/emotic/": AWS,
    "ray rsync-up deploy/ray_up.yaml ~/.cache/ccim_ray/weights/ /shared/weights/": AWS,
    "ray down deploy/ray_up.yaml": AWS,
    "export CCIM_RAY_STORAGE=/shared/runs CCIM_RAY_WEIGHTS=/shared/weights": MACHINES,
    "RAY_JOB_STOP_WAIT_TIME_S=60 ray start --head --port 6379": MACHINES,
}
NOT_HERE_BY_START = {
    "kubectl ": KUBERNETES,
    "export RAY_AUTH_TOKEN=": KUBERNETES,
    "export RAY_AUTH_MODE=token RAY_API": KUBERNETES,
    "helm ": KUBERNETES,
    "docker push ": ENGINE,
    "docker build -f deploy/Dockerfile -t registry.example.org/ccim-ray:cpu": CPU_IMAGE,
    "for host in ": MACHINES,
    "for world in ": HOURS,
    "for baseline in ": HOURS,
}

QUICK = ["python jobs/compare_baselines.py --help", "python jobs/compare_baselines.py --plan"]
TUTORIAL = [
    "python jobs/compare_baselines.py --baselines emot_net --preset smoke",
    "python jobs/compare_baselines.py --baselines emot_net --preset smoke --seeds 0 1 2",
    "python jobs/make_confounded_scenes.py --like emotic --out /tmp/emotic --images 400 --defects 0.01",
    "python jobs/check_dataset.py --dataset emotic --data-root /tmp/emotic",
    "python jobs/train.py --dataset emotic --data-root /tmp/emotic --stand-ins --trainable head --preset smoke",
    "python jobs/compare_attention.py --preset smoke",
]
"""In the order of the tutorial, in one storage."""


def commands_of(text):
    """Commands of the fenced blocks without a language, one string each; output that is shown is left out."""
    for _, language, block in FENCE.findall(text):
        if language not in ("", "bash", "sh", "console"):
            continue
        # Continued lines are one command, and so is a loop.
        block = re.sub(r"\\\n\s*", "", block)
        block = re.sub(r"^ *for .*?^ *done$", lambda loop: re.sub(r"\n\s*", " ", loop[0]), block, flags=re.M | re.S)
        lines = [line.strip() for line in block.splitlines()]
        if any(line.startswith("$ ") for line in lines):
            lines = [line for line in lines if line.startswith("$ ")]
        for line in lines:
            if COMMAND.match(line):
                yield line.removeprefix("$ ").replace(".venv/bin/python", "python")


def found():
    return {command: page.name for page in PAGES for command in commands_of(page.read_text())}


def starts_of(command):
    return [start for start in NOT_HERE_BY_START if command.startswith(start)]


def test_every_command_is_run_or_says_why_not():
    known = {*BY_A_TEST, *NOT_HERE, *QUICK, *TUTORIAL}
    assert {command: page for command, page in found().items() if command not in known and not starts_of(command)} == {}
    assert known - set(found()) == set()
    assert {start for start in NOT_HERE_BY_START if not any(c.startswith(start) for c in found())} == set()


def test_every_block_without_a_language_holds_a_command_or_is_known_output():
    odd = []
    for page in PAGES:
        for _, language, block in FENCE.findall(page.read_text()):
            if not language and not list(commands_of(f"```\n{block}```")):
                odd.append((page.name, block.strip().partition("\n")[0]))
    assert odd == [("README.md", "Does the size N of the confounder dictionary matter?")]


@pytest.mark.parametrize("test", sorted(set(BY_A_TEST.values())))
def test_the_test_that_is_named_is_there(test):
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def run_command(command, storage, replaced=(), folder=ROOT):
    for old, new in replaced:
        command = command.replace(old, new)
    words = command.split()
    assert words[0] == "python"
    environment = job_environment() | {"CCIM_RAY_STORAGE": str(storage), "PYTHONPATH": str(folder)}
    ended = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize("command", QUICK)
def test_a_command_that_starts_nothing(command, tmp_path):
    assert run_command(command, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_of_the_tutorial_in_their_order(tmp_path):
    """In a copy of the repository, with the files that the tutorial tells its reader to write."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("ccim_ray", "docs"):
        (repository / name).symlink_to(ROOT / name)
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for folder in ("jobs", "search_spaces"):
        (repository / folder).mkdir()
        for path in (ROOT / folder).glob("*.py"):
            (repository / folder / path.name).symlink_to(path)
    written = re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in written] == ["search_spaces/attention.py", "jobs/compare_attention.py"]
    for name, content in written:
        (repository / name).write_text(content)
    place = [("/tmp/emotic", str(tmp_path / "emotic"))]
    assert [c for c in commands_of(text) if c in TUTORIAL] == TUTORIAL
    said = {command: run_command(command, tmp_path / "runs", place, repository) for command in TUTORIAL}
    assert "dot product" in said[TUTORIAL[-1]]
    assert "Done in" in said[TUTORIAL[0]]
    report = run_command("python jobs/report.py", tmp_path / "runs", place, repository)
    assert "report.html" in report


def test_the_python_of_the_pages_runs(tmp_path):
    blocks = [
        block
        for page in (ROOT / "README.md", ROOT / "docs" / "tutorial.md")
        for _, language, block in FENCE.findall(page.read_text())
        if language == "python" and "import torch" in block
    ]
    assert len(blocks) == 2
    for block in blocks:
        code = block + "\nassert do_x_BM.shape[1] == 128\n"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
