"""Grouped convolutions as a few large operations, where libraries compute group by group.

They are either one dense convolution with zero weights between the groups, or one batched matrix product with a matrix
per group. Inputs and outputs are [N, H, W, C], weights [O, C / groups, k, k].
"""
import torch
import torch.nn.functional as F
from torch import Tensor

# The most zeros by which a dense convolution multiplies each input. On an H200 cnn6, with 1,920, takes six times as long as
# its products. The other stages, with up to 896, take at most twice as long, and products also need copies.
MOST_ZEROS = 1024


def is_better_as_products(weights: Tensor, groups: int) -> bool:
    """Whether a GPU is faster with products than with one dense convolution."""
    return (groups - 1) * (len(weights) // groups) > MOST_ZEROS


def is_tiled(size: int, output_size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether each input position is read by exactly one output position."""
    return padding == 0 and size == output_size * kernel and (output_size == 1 or stride == kernel)


def dense_weights(weights: Tensor, groups: int) -> Tensor:
    """[O, C / groups, k, k] -> [O, C, k, k], channels last in memory: zero for channels that a filter does not read."""
    filters, (_, channels, kernel, _) = len(weights) // groups, weights.shape
    dense = weights.new_zeros(groups, filters, kernel, kernel, groups, channels)
    dense.diagonal(0, 0, 4).copy_(weights.unflatten(0, (groups, filters)).permute(1, 3, 4, 2, 0))
    return dense.flatten(4).flatten(0, 1).permute(0, 3, 1, 2)


def own_weights(dense: Tensor, groups: int) -> Tensor:
    """The inverse of dense_weights: keeps each filter's weights of the channels that it reads."""
    parts = dense.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))  # [groups, filters, groups, channels, k, k]
    return parts.diagonal(0, 0, 2).permute(4, 0, 1, 2, 3).flatten(0, 1)


def products(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """The convolution as products: [N, H, W, C] -> [N, H', W', O]."""
    rows, columns = _rows(x, weights.shape[2], stride, padding, groups), _columns(weights, groups)
    y = torch.bmm(_matrices(rows), columns.flatten(2).transpose(1, 2))  # [groups, N * H' * W', filters]
    return y.unflatten(1, rows.shape[1:4]).permute(1, 2, 3, 0, 4).flatten(3)


def backward_products(gradient: Tensor, x: Tensor, weights: Tensor, stride: int, padding: int,
                      groups: int) -> tuple[Tensor, Tensor]:
    """The gradients with respect to x and weights as products, in the incoming gradient's dtype.

    If windows overlap, a position's parts are rounded to that dtype, then added in float32 or wider.
    """
    kind, kernel = gradient.dtype, weights.shape[2]
    rows, columns = _rows(x, kernel, stride, padding, groups).to(kind), _columns(weights, groups)
    gradient = gradient.view(-1, groups, columns.shape[1]).transpose(0, 1).contiguous()  # [groups, N * H' * W', filters]
    parts = torch.bmm(gradient, columns.to(kind).flatten(2)).view(rows.shape)
    to_columns = torch.bmm(gradient.transpose(1, 2), _matrices(rows)).view(columns.shape)
    return _sum_of_parts(parts, x.shape, stride, padding), to_columns.permute(0, 1, 4, 2, 3).flatten(0, 1)


def _rows(x: Tensor, kernel: int, stride: int, padding: int, groups: int) -> Tensor:
    """The inputs of each output position of each group: [N, H, W, C] -> [groups, N, H', W', k, k, C / groups]."""
    x = F.pad(x, (0, 0, padding, padding, padding, padding)) if padding else x
    windows = x.unflatten(3, (groups, -1)).unfold(1, kernel, stride).unfold(2, kernel, stride)
    return windows.permute(3, 0, 1, 2, 5, 6, 4).contiguous()


def _matrices(rows: Tensor) -> Tensor:
    """_rows as matrices, [groups, N * H' * W', k * k * C / groups]."""
    return rows.flatten(4).flatten(1, 3)


def _columns(weights: Tensor, groups: int) -> Tensor:
    """[O, C / groups, k, k] -> [groups, filters, k, k, C / groups]."""
    return weights.unflatten(0, (groups, -1)).permute(0, 1, 3, 4, 2)


def _sum_of_parts(parts: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """The gradient with respect to _rows' x, of this shape, from that of its result; overlapping parts are summed."""
    size, kernel = parts.shape[2], parts.shape[4]
    if is_tiled(shape[1], size, kernel, stride, padding):
        return parts.permute(1, 2, 4, 3, 5, 0, 6).reshape(shape)
    blocks = parts.permute(1, 0, 6, 4, 5, 2, 3).to(torch.promote_types(parts.dtype, torch.float32))
    blocks = blocks.flatten(5).flatten(1, 4)  # [N, C * k * k, H' * W']
    total = F.fold(blocks, shape[1:3], kernel, padding=padding, stride=stride).permute(0, 2, 3, 1)
    return total.to(parts.dtype, memory_format=torch.contiguous_format)
