"""Write the locks anew: one hashed, universal requirements file per way to install, without registry addresses.

torch stays outside (requirements/torch.txt), whoever asks for it; what it needs and every machine can share is inside, so
that installing torch afterwards adds nothing else where a CPU build is found.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
TORCH_NEEDS = ["filelock", "fsspec", "jinja2", "networkx", "setuptools>=80,<82", "sympy", "typing-extensions"]
LOCKS = {
    "dev": ["dev", "cpu"],
    "train": ["train", "cpu"],
    "serve-cpu": ["serve", "cpu", "embedded"],
    "serve-gpu": ["serve", "gpu"],
}


def requirements_of(extras: list[str]) -> list[str]:
    """The direct requirements of these extras of pyproject.toml, torch replaced by what it needs."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    found, waiting, done = list(project["dependencies"]), list(extras), set[str]()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        for requirement in project["optional-dependencies"][name]:
            if requirement.startswith("syncrec["):
                waiting += requirement.removeprefix("syncrec[").rstrip("]").split(",")
            elif requirement.startswith("torch=="):
                found += TORCH_NEEDS
            else:
                found.append(requirement)
    return sorted(set(found))


def main() -> None:
    for name, extras in LOCKS.items():
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "-", "--output-file", str(HERE / f"{name}.txt")]
        command += ["--override", str(HERE / "overrides.in"), "--no-emit-package", "torch"]
        subprocess.run(command, input="\n".join(requirements_of(extras)), text=True, check=True)
    print(f"wrote {', '.join(f'{name}.txt' for name in LOCKS)}", file=sys.stderr)


if __name__ == "__main__":
    main()
