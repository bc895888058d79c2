"""Check Fashion-MNIST's data, or download the four files.

python tools/get_fashion_mnist.py --data-dir DIR    reports what is there and checks it
python tools/get_fashion_mnist.py --download DIR    fetches the files, then does the same
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, exit_status, path
from experiments.p2 import fashion_mnist


def main(argv: list[str] | None = None) -> int:
    """Say what a data folder holds and whether it is right, or download it; 2 if it is wrong."""
    p = Parser("get_fashion_mnist", "Check Fashion-MNIST data, or download them.")
    p.add_argument("--data-dir", type=path, help="folder with the data (default: the one that DLPERF_DATA names)")
    p.add_argument("--download", type=path, metavar="DIR", help="fetch the files into DIR first")
    a = p.parse_args(argv)

    def work() -> int:
        if a.download:
            fashion_mnist.download(a.download)
        data = fashion_mnist.load(a.download or a.data_dir)
        for name in fashion_mnist.FILES:
            print(f"{name:<13} {getattr(data, name).shape}")
        return 0

    return exit_status("get_fashion_mnist", work, "a download goes on where it is called again", "nothing was changed")


if __name__ == "__main__":
    sys.exit(main())
