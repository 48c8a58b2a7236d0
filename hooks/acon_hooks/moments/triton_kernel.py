"""The Triton kernel of `triton_sums`."""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _tanh(z):
    """Return tanh to float64's precision; near 0 by its series."""
    s = z * z
    near = z * (1 - s * (1 / 3 - s * (2 / 15 - s * (17 / 315 - s * (62 / 2835)))))
    e = tl.exp(-2 * tl.abs(z))
    far = tl.where(z < 0, e - 1, 1 - e) / (1 + e)
    return tl.where(tl.abs(z) < 0.02, near, far)


@triton.jit
def _mean(out, row, own, about, total, pixels, scale):
    """Write a mean."""
    tl.store(out + row, (about + tl.sum(total, 1) / pixels) * scale, mask=own)


@triton.jit
def _product(out, row, own, products, one, other, pixels, scale, square: tl.constexpr):
    """Write a centred sum of products."""
    found = tl.sum(products, 1) - tl.sum(one, 1) * tl.sum(other, 1) / pixels
    if square:
        found = tl.where(found < 0, 0.0, found)
    tl.store(out + row, found * scale, mask=own)


@triton.jit(do_not_specialize=["channels", "pixels", "row"])
def take(
    x, y, constants, beta, out, channels, pixels, row,
    x_sample, x_channel, x_pixel, y_sample, y_channel, y_pixel, beta_sample, beta_channel,
    kind: tl.constexpr, write: tl.constexpr, wide: tl.constexpr, long: tl.constexpr,
):  # fmt: skip
    """Sum over the pixels of `wide` channels of one sample, `long` pixels at a time."""
    sample = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1).to(tl.int64) * wide + tl.arange(0, wide)
    own = channel < channels
    x += sample * x_sample + channel * x_channel
    y += sample * y_sample + channel * y_channel
    first = tl.load(x, mask=own, other=0.0).to(tl.float64)
    zeros = tl.zeros((wide, long), dtype=tl.float64)
    about_w, about_t, about_r = first, first, first
    half, middle, steep, steep_r = first, first, first, first
    if kind == 0:
        about_w = tl.load(y, mask=own, other=0.0).to(tl.float64)
    else:
        half = tl.load(constants + channel, mask=own, other=0.0)
        middle = tl.load(constants + channels + channel, mask=own, other=0.0)
        at = beta + sample * beta_sample + channel * beta_channel
        steep = tl.load(at, mask=own, other=0.0).to(tl.float64) * half
        about_t = _tanh(steep * first)
        about_w = about_t * first
        if kind == 2:
            steep_r = tl.load(constants + 2 * channels + channel, mask=own, other=0.0) * half
            about_r = _tanh(steep_r * first) * first
    low, high, positive = zeros + first[:, None], zeros + first[:, None], zeros
    sa, saa, sw, sww, saw, st, stt = zeros, zeros, zeros, zeros, zeros, zeros, zeros
    sr, srr, sar = zeros, zeros, zeros
    for start in range(0, pixels, long):
        pixel = start + tl.arange(0, long).to(tl.int64)
        here = own[:, None] & (pixel < pixels)[None, :]
        value = tl.load(x[:, None] + pixel[None, :] * x_pixel, mask=here, other=0.0)
        value = tl.where(here, value.to(tl.float64), first[:, None])  # which adds nothing
        a = value - first[:, None]
        sa += a
        saa += a * a
        low, high = tl.minimum(low, value), tl.maximum(high, value)
        positive += tl.where(here & (value > 0), 1.0, 0.0)
        output = y[:, None] + pixel[None, :] * y_pixel
        if kind == 0:
            w = tl.load(output, mask=here, other=0.0).to(tl.float64)
            w = tl.where(here, w, about_w[:, None]) - about_w[:, None]
        else:
            gate = _tanh(steep[:, None] * value)
            if write:
                found = value * (middle[:, None] + half[:, None] * gate)
                if y.dtype.element_ty == tl.bfloat16:  # not in one step by the interpreter
                    found = found.to(tl.float32)
                tl.store(output, found.to(y.dtype.element_ty), mask=here)
            w = gate * value - about_w[:, None]
            t = gate - about_t[:, None]
            st += t
            stt += t * t
            if kind == 2:
                r = _tanh(steep_r[:, None] * value) * value - about_r[:, None]
                sr += r
                srr += r * r
                sar += r * a
        sw += w
        sww += w * w
        saw += w * a
    # Rows in the order of `kernels.Sums`; so far w and r lack the factor d/2.
    out += sample * channels + channel
    scale = half if kind else 1.0
    _mean(out, 0 * row, own, first, sa, pixels, 1.0)
    _product(out, 1 * row, own, saa, sa, sa, pixels, 1.0, True)
    _mean(out, 2 * row, own, about_w, sw, pixels, scale)
    _product(out, 3 * row, own, sww, sw, sw, pixels, scale * scale, True)
    _product(out, 4 * row, own, saw, sa, sw, pixels, scale, False)
    lowest, highest = tl.min(low, 1), tl.max(high, 1)
    tl.store(out + 5 * row, lowest, mask=own)
    tl.store(out + 6 * row, highest, mask=own)
    tl.store(out + 7 * row, tl.sum(positive, 1), mask=own)
    if kind > 0:
        _mean(out, 8 * row, own, about_t, st, pixels, 1.0)
        _product(out, 9 * row, own, stt, st, st, pixels, 1.0, True)
        tl.store(out + 10 * row, tl.minimum(steep * lowest, steep * highest), mask=own)
        tl.store(out + 11 * row, tl.maximum(steep * lowest, steep * highest), mask=own)
    if kind == 2:
        _mean(out, 12 * row, own, about_r, sr, pixels, scale)
        _product(out, 13 * row, own, srr, sr, sr, pixels, scale * scale, True)
        _product(out, 14 * row, own, sar, sa, sr, pixels, scale, False)
