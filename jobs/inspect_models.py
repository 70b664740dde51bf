"""What do a baseline's models know of the scene (Fig. 7), and whom does only one of them get right (Fig. 8)?"""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run
from ccim_ray.inspecting import InspectionFlags, inspect_models


def main() -> int:
    flags = parse(InspectionFlags, __doc__ or "")
    from search_spaces.inspection import inspection_space

    return inspect_models(flags, inspection_space(flags.deconfounders), sys.argv)


if __name__ == "__main__":
    run(main)
