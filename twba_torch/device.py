"""The device of a process, and its place among several processes."""
import contextlib
import itertools
import logging
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator

import torch

from twba_nets.system import memory
from twba_nets.system.errors import UserError
from twba_nets.system.streams import is_launched


@contextlib.contextmanager
def prepared(name: str = None, threads: int = 0) -> Iterator[torch.device]:
    """The torch.device of this name (find). Under torchrun it also joins the other processes. threads: 0 for the default."""
    keep_memory()
    if threads:
        torch.set_num_threads(threads)
    device = find(name)
    if not is_launched():
        yield device
        return
    quieten_distributed()
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        torch.distributed.destroy_process_group()


def leave() -> None:
    """End this process at once if it is one of several.

    PyTorch 2.13 aborts if Python exits while a thread of Gloo still frees a tensor: one run of ten on a busy machine.
    """
    if is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def quieten_distributed() -> None:
    """Silence harmless warnings that each process would print."""
    # gradients of 1x1 kernels differ only in the strides of axes of length 1
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # torch.compile skips the profiler's marks in DistributedDataParallel
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)


def keep_memory() -> None:
    """Keep freed memory for the next step, in huge pages."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first allocation
    memory.keep_freed()


def check_gpu(compiled: bool) -> None:
    """Raise UserError if torch.compile lacks the C compiler that it needs for a GPU. compiled: as Trainer's."""
    if compiled and not os.environ.get("CC") and not (shutil.which("gcc") or shutil.which("clang")):
        raise UserError("on a GPU torch.compile needs gcc or clang, and Python's headers: install them, or add --no-compile")


def check_cpu(exact: bool, compiled: bool) -> None:
    """Raise UserError if this machine cannot train on its CPU. exact, compiled: as Trainer's."""
    if exact and "onednn" not in torch.backends.quantized.supported_engines:
        raise UserError("this build of PyTorch has no int8 convolutions (oneDNN): add --precision float32")
    if compiled:
        os.environ["CXX"] = _compiler()  # torch.compile reads it at its first use


def _compiler() -> str:
    """The C++ compiler in CXX, without a launcher or flags, which torch.compile cannot take. Raises UserError."""
    try:
        words = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    except ValueError as error:
        raise UserError("CXX={}: not a command ({}): set it to a compiler, such as g++".format(os.environ["CXX"], error))
    before_flags = list(itertools.takewhile(lambda word: not word.startswith("-"), words))  # of "ccache g++ -m64"
    compiler = (before_flags or words)[-1]
    if not shutil.which(compiler):
        raise UserError(f"{compiler}: not found, but torch.compile needs it: install it, or add --no-compile")
    return compiler


def find(name: str = None) -> torch.device:
    """The torch.device of this name, set up for training (default: a GPU if there is one).

    cuda is this process's GPU: under torchrun the one of its LOCAL_RANK, else the first. Numbers count the GPUs in
    CUDA_VISIBLE_DEVICES. Raises UserError if the device cannot be used.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    known = re.fullmatch("cpu|cuda(?::([0-9]+))?", name)
    if not known:
        raise UserError(f"--device {name}: not supported: name cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device(name)
    number = known.group(1)
    if number and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise UserError(f"--device {name}: several processes cannot share a GPU: name cuda, and each takes its own")
    device = _gpu(name, int(number or os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    torch.backends.cudnn.allow_tf32 = False  # the float stages decide the input spikes and need full precision
    torch.backends.cudnn.deterministic = True  # a resumed run equals an uninterrupted one
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # sum products in float32
    # torch.compile would advise TensorFloat32
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
    return device


def _gpu(name: str, number: int) -> torch.device:
    """cuda:NUMBER, after a test computation. Raises UserError if it fails."""
    try:
        if number >= torch.cuda.device_count() > 0:  # torch.device("cuda:256") would be the first GPU
            raise RuntimeError(f"there are {torch.cuda.device_count()} GPUs, counted from 0")
        device = torch.device(f"cuda:{number}")
        torch.ones(1, device=device).item()  # also fails if this PyTorch has no code for this GPU
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not usable ({str(error).splitlines()[0]}): "
                        "use another, fewer processes, or --device cpu")
    return device
