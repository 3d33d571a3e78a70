"""Running trained models on images with PyTorch: for twba-nets evaluate and predict, if the engine lacks the activation."""
import numpy as np
import torch
import torch.nn.functional as F

from twba_nets.system import progress
from twba_nets.system.arrays import Arrays
from twba_nets.runs.model import Model
from twba_nets.runs.spike_statistics import Result
from twba_torch.standard_network import StandardNetwork, from_model

BATCH = 200  # images per batch


@torch.inference_mode()
def run(network: StandardNetwork, images: np.ndarray) -> tuple[np.ndarray, Arrays]:
    """Logits float32 [N, classes] and the maps, name -> float32 [N, H, W, C] in {0, 0.5, 1}, of images uint8 [N, S, S, C]."""
    logits, maps = network(torch.tensor(images).movedim(3, 1) / 255, return_spikes=True)
    return logits.numpy(), {name: spikes.movedim(1, 3).numpy() for name, spikes in maps.items()}


def evaluate(model: Model, x: np.ndarray, y: np.ndarray, threads: int = 0) -> Result:
    """Evaluate a model on images uint8 [N, S, S, C] with labels int [N], on the CPU. threads: 0 for PyTorch's default."""
    if threads:
        torch.set_num_threads(threads)
    network, logits, spikes, counted = from_model(model), [], [], model.about.architecture.counted_maps
    with progress.bar(len(x), "evaluation") as bar:
        for start in range(0, len(x), BATCH):
            found, maps = run(network, x[start:start + BATCH])
            logits.append(found)
            spikes.append(np.stack([maps[name].sum((1, 2, 3), dtype=np.float64) for name in counted], axis=1))
            bar.update(len(found))
    predictions, labels = torch.from_numpy(np.concatenate(logits)), torch.tensor(y).long()
    return Result(F.cross_entropy(predictions.double(), labels).item(), (predictions.argmax(1) == labels).double().mean().item(),
                  np.concatenate(spikes))
