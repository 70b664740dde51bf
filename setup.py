"""Where jobs and search spaces lie in a wheel: inside the package, as their names are likely to be others' too."""

from setuptools import find_namespace_packages, setup
from setuptools.command.editable_wheel import editable_wheel

PACKAGE = find_namespace_packages(include=["ccim_ray", "ccim_ray.*"])
BESIDE = ["jobs", "search_spaces"]


class AsInTheCheckout(editable_wheel):
    """An editable install shows the folders under the names that they have in the checkout."""

    def initialize_options(self) -> None:
        self.distribution.packages = [*PACKAGE, *BESIDE]
        self.distribution.package_dir = {}
        super().initialize_options()


setup(
    packages=[*PACKAGE, *(f"ccim_ray.shipped.{name}" for name in BESIDE)],
    package_dir={f"ccim_ray.shipped.{name}": name for name in BESIDE},
    cmdclass={"editable_wheel": AsInTheCheckout},
)
