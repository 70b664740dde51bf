"""What several test files need: one small embedded world, a browser, a bucket, and a disk that runs full."""

import resource
import shutil
import subprocess
import tempfile
from contextlib import contextmanager

import pytest
from hypothesis import settings
from pyarrow.fs import FileSystem

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world

SMALL_WORLD = WorldSettings(like="caer_s", images=60, image_size=64)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")  # main stays green; what nobody has seen yet is looked for by `make fuzz`

SHARE_A_PROCESS = ("pipeline", "cluster")
"""Folders whose tests share one cluster of Ray and one sweep."""


def pytest_collection_modifyitems(items):
    """Where tests run in several processes (`pytest -n N --dist loadgroup`), a file stays in one."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder in SHARE_A_PROCESS else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    """Folder of a written world of 60 pictures in the form of CAER-S; not to be changed."""
    root = tmp_path_factory.mktemp("small_world")
    write_world(SMALL_WORLD, root)
    return root


@pytest.fixture(scope="module")
def browser():
    """Chromium, without requests of its own. Skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def s3_server():
    """Host and port of a server that speaks S3. Skips the test where moto is not installed."""
    running = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket_address(s3_server, monkeypatch, request):
    """A storage's address in a new bucket, with keys for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"b{abs(hash(request.node.name)) % 10**8}"
    options = f"region=eu-west-1&scheme=http&endpoint_override={s3_server}"
    FileSystem.from_uri(f"s3://{bucket}?{options}&allow_bucket_creation=true")[0].create_dir(bucket)
    return f"s3://{bucket}/ccim?{options}"


@pytest.fixture
def ray_of_its_own(monkeypatch):
    """A folder where no other job finds the cluster of a test; a short name, for sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def full_disk():
    """Within the block, no file of this process grows beyond 4 KiB: writing fails as on a full disk."""

    @contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 96 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount on this system")
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
