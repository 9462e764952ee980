"""How fast this machine multiplies matrices at best."""

import time

import torch


@torch.no_grad()
def measured_peak(device: torch.device | str, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of the fastest matrix product on `device`: square ones of growing size, for about `seconds`."""
    device = torch.device(device)
    sizes = (256, 512, 1024, 2048) if device.type == "cpu" else (1024, 2048, 4096, 8192)
    repeats = 2 if device.type == "cpu" else 10  # a GPU is asked to wait once for all of them
    best, began = 0.0, time.perf_counter()
    for size in sizes:
        flops = 2.0 * size**3 * repeats
        if best and time.perf_counter() - began + 2 * flops / best > seconds:
            break
        block = torch.randn(256, 256, device=device).to(dtype)
        a = block.repeat(size // 256, size // 256)
        out = torch.mm(a, a)  # warms up
        float(out[0, 0])  # waits for the device
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                torch.mm(a, a, out=out)
            float(out[0, 0])
            now = time.perf_counter()
            best = max(best, flops / (now - start))
            if now - began > seconds:
                break
    return best
