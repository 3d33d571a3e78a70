"""Test the exported files in other projects' readers, each in a separate environment: docs/readers.md has the results.

    make test-readers   all of them; only some: make test-readers ARGS="-s sinabs tvm"

READERS_DIR: folder for environments and files, else .venv-readers. CIFAR10_DIR: folder of real images.
"""
import os
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("READERS_DIR") or ROOT / ".venv-readers").resolve()
FILES = FOLDER / "files"
# reader -> (the environment whose packages it also sees (`make setup setup-torch`), its own packages). They are installed
# without dependencies, so that none replaces PyTorch; all else that they import is in the environment.
READERS = {
    "sinabs": (".venv-torch", "sinabs==3.1.3 nir==1.0.4 nirtorch==2.0.2 pbr==7.1.3"),
    "spikingjelly": (".venv-torch", "spikingjelly==2.0.0 loguru==0.7.3"),
    "snntorch": (".venv-torch", "snntorch==1.0.0"),
    "neurobench": (".venv-torch", "neurobench==2.3.0"),
    "onnxruntime": (".venv", "onnxruntime==1.14.1 numpy==1.21.6"),
    "openvino": (".venv-torch", "openvino==2026.4.1"),
    "onnx2torch": (".venv-torch", "onnx2torch==1.5.15 torchvision==0.28.0"),
    "tvm": (".venv-torch", "apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.15.post2"),
    "ncnn": (".venv-torch", "ncnn==1.0.20261020 pnnx==20261020"),
    "qonnx": (".venv-torch", "qonnx==1.0.0 toposort==1.10"),
    "finn": (".venv-torch", "finn-plus==1.6.1 qonnx==1.0.0 toposort==1.10 annotated-types==0.8.0 attrs==26.1.0 bitarray==3.12.3 "
             "bitstring==4.3.1 cffi==2.1.1 click==8.1.8 clize==5.0.2 mashumaro==3.23 mip==1.17.0 onnx-ir==1.1.0 "
             "onnx-passes==0.4.1 onnxscript==0.7.2 pandas==2.3.3 psutil==7.2.2 pycparser==3.12 pydantic==2.14.4 "
             "pydantic-core==2.50.5 pytz==2026.6 PyYAML==6.0.4 rich==13.9.4 sigtools==4.0.1 typing-inspection==0.4.5"),
    "litert": (".venv-torch", "ai-edge-litert==2.3.0"),
    "paibox": (".venv-torch", "paibox==1.2.2 paicorelib==1.4.1 pydantic==2.14.4 pydantic-core==2.50.5 annotated-types==0.8.0 "
               "typing-inspection==0.4.5"),
}
nox.options.envdir, nox.options.reuse_venv = str(FOLDER), "yes"


@nox.session(venv_backend="none")
def files(session: nox.Session) -> None:
    """Write the exported files."""
    session.chdir(ROOT)
    session.run("rm", "-rf", str(FILES))
    session.run(".venv-torch/bin/python", "tests/readers/make_files.py", str(FILES))


def add_reader(name: str, base: str, packages: str) -> None:
    @nox.session(name=name, python=str(ROOT / base / "bin" / "python"), venv_backend="venv", requires=["files"])
    def reader(session: nox.Session) -> None:
        session.install("--quiet", "--no-deps", *packages.split())
        own, shared = (next((folder / "lib").glob("python*/site-packages")) for folder in (
            Path(session.virtualenv.location), ROOT / base))
        (own / "base.pth").write_text(f"{shared}\n")
        session.chdir(ROOT)
        session.run("python", "-W", "ignore", "-m", "pytest", "-q", "--confcutdir", "tests/readers",
                    f"tests/readers/test_{name}.py", env={"READERS_FILES": str(FILES)})


for name, (base, packages) in READERS.items():
    add_reader(name, base, packages)
