"""Voices: how a thing sounds, and synthesising a few seconds of it.

n samples, K calls, P partials. Sounds are made by source and filter (Fant, 1960): a pitched wave or noise,
shaped by resonances, in calls with a rhythm; or by struck partials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise import noise_line

RATE = 16_000  # samples per second
_CONTROL = 16  # samples between two control values
# lowest and highest pitch, share of harmonic sound, call length in seconds (0 is endless), gap in seconds
_RANGES = {
    "call": (150, 900, 0.75, 1.0, 0.15, 0.8, 0.1, 0.6), "chirp": (900, 4500, 0.9, 1.0, 0.03, 0.3, 0.03, 0.4),
    "growl": (45, 140, 0.3, 0.8, 0.4, 1.5, 0.1, 0.6), "buzz": (90, 420, 0.7, 1.0, 0, 0, 0, 0),
    "engine": (25, 110, 0.4, 0.9, 0, 0, 0, 0), "siren": (350, 1200, 0.9, 1.0, 0.4, 1.4, 0, 0.1),
    "bowed": (80, 700, 0.92, 1.0, 0.3, 1.2, 0, 0.1), "blown": (120, 1000, 0.8, 0.98, 0.2, 1.0, 0, 0.2),
    "pluck": (80, 700, 1, 1, 0.15, 0.6, 0, 0.2), "bell": (200, 1800, 1, 1, 0.15, 1.2, 0, 0.3),
    "knock": (60, 900, 0.5, 1, 0.08, 0.5, 0, 0.2), "rush": (100, 400, 0, 0.1, 0, 0, 0, 0),
    "rattle": (100, 2000, 0, 0.25, 0.02, 0.12, 0.02, 0.12),
}  # fmt: skip
FAMILIES = tuple(_RANGES)


@dataclass(frozen=True)
class Voice:
    """Everything that stays the same between two recordings of a thing."""

    family: str  # one of FAMILIES, for captions
    pitch: float  # hertz
    contour: tuple[float, ...]  # pitch over a call in semitones, evenly spaced
    harmonic: float  # 1 pitched, 0 noise
    tilt: float  # harmonic h has amplitude h^-tilt
    odd: float  # weight of even harmonics, 0 hollow to 1 full
    formants: tuple[tuple[float, float, float], ...]  # resonances: hertz, width in octaves, gain
    glide: float  # octaves that the resonances move during a call
    call_seconds: float  # length of one call; 0 means it never stops
    gap_seconds: float
    group: int  # calls per group, then a pause of pause_seconds
    pause_seconds: float
    attack: float  # seconds
    decay: float  # share of the call spent falling
    tremolo: float  # hertz
    tremolo_depth: float
    vibrato: float  # hertz
    vibrato_depth: float  # semitones
    partials: tuple[
        tuple[float, float, float], ...
    ]  # struck sounds: ratio, amplitude, decay seconds; else empty
    melody: tuple[float, ...]  # semitones added to successive calls
    roughness: float  # irregular pitch, semitones
    shimmer: float  # irregular loudness, nepers
    cutoff: float  # hertz above which the recording holds little
    body_seed: int  # of the fine structure of the spectrum
    body_db: float  # its depth


def random_voice(rng: np.random.Generator, family: str | None = None) -> Voice:
    """A voice from the unbounded family."""
    family = family or str(rng.choice(FAMILIES))
    low, high, h_low, h_high, call_low, call_high, gap_low, gap_high = _RANGES[family]
    swing = {"siren": 8, "chirp": 10, "call": 5, "growl": 3}.get(family, 0.4)
    struck = family in ("pluck", "bell", "knock")
    tuneful = family in ("pluck", "bowed", "blown", "bell")
    return Voice(
        family=family,
        pitch=_log_uniform(rng, low, high),
        contour=tuple(float(v) for v in np.cumsum(rng.normal(0, swing / 2, int(rng.integers(2, 6))))),
        harmonic=float(rng.uniform(h_low, h_high)),
        tilt=float(rng.uniform(0.3, 2.0)),
        odd=float(rng.choice([1.0, 1.0, rng.uniform(0, 0.6)])),
        formants=tuple(
            (_log_uniform(rng, 250, 6500), float(rng.uniform(0.12, 0.7)), float(rng.uniform(0.5, 3.0)))
            for _ in range(int(rng.integers(1, 5)))
        ),
        glide=float(rng.choice([0.0, rng.normal(0, 0.5)])),
        call_seconds=float(rng.uniform(call_low, call_high)),
        gap_seconds=float(rng.uniform(gap_low, gap_high)),
        group=int(rng.integers(1, 7)),
        pause_seconds=float(rng.choice([0.0, rng.uniform(0.1, 0.7)])),
        attack=_log_uniform(rng, 0.004, 0.12),
        decay=float(rng.uniform(0.1, 0.95)),
        tremolo=_log_uniform(rng, 2, 60),
        tremolo_depth=float(rng.choice([0.0, rng.uniform(0.3, 1.0)])),
        vibrato=float(rng.uniform(3, 14)),
        vibrato_depth=float(rng.choice([0.0, rng.uniform(0.1, 1.5)])),
        partials=_random_partials(rng, family) if struck else (),
        melody=tuple(float(v) for v in rng.integers(-7, 8, int(rng.integers(2, 6)))) if tuneful else (0.0,),
        roughness=_log_uniform(rng, 0.02, 1.0),
        shimmer=float(rng.uniform(0.0, 0.5)),
        cutoff=float(rng.choice([8000.0, _log_uniform(rng, 2500, 8000)])),
        body_seed=int(rng.integers(2**31)),
        body_db=float(rng.uniform(2, 8)),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _random_partials(rng: np.random.Generator, family: str) -> tuple[tuple[float, float, float], ...]:
    """Ratio, amplitude and decay of the partials of a struck body."""
    count = int(rng.integers(4, 9))
    index = np.arange(1, count + 1)
    if family == "pluck":
        ratio = index * np.sqrt(1 + float(rng.uniform(0, 0.003)) * index**2)
    else:
        ratio = np.sort(np.concatenate([[1.0], rng.uniform(1.2, 7.0, count - 1)]))
    longest = {
        "pluck": rng.uniform(0.2, 0.9),
        "bell": rng.uniform(0.3, 1.6),
        "knock": rng.uniform(0.015, 0.12),
    }[family]
    decay = longest / ratio ** rng.uniform(0.2, 1.0)
    amplitude = ratio ** -rng.uniform(0.2, 1.5) * rng.uniform(0.4, 1.0, count)
    return tuple((float(r), float(a), float(d)) for r, a, d in zip(ratio, amplitude, decay, strict=True))


def synthesise(
    voice: Voice, rng: np.random.Generator, samples: int, speed: float = 1.0, pitch: float = 1.0
) -> np.ndarray:
    """(n,) float32 at 16 kHz with a root mean square of 0.1 while it sounds.

    `speed` plays faster and higher, as a tape does; `pitch` alone multiplies the pitch. Recordings start at a
    random point.
    """
    starts, lengths, shifts = _calls(voice, rng, samples / RATE, speed)
    if voice.partials:
        wave = _struck(voice, rng, samples, starts, shifts, speed * pitch)
    else:
        wave = _sustained(voice, rng, samples, starts, lengths, shifts, speed, pitch)
    loud = np.sort(np.abs(wave[::8]))[
        samples // 16 :
    ]  # the louder half carries the level, however sparse the calls
    return wave * np.float32(0.1 / (np.sqrt(np.mean(loud**2)) + 1e-6))


def _calls(
    voice: Voice, rng: np.random.Generator, seconds: float, speed: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start (seconds), length (seconds) and pitch shift (semitones) of every call: each (K,)."""
    if voice.call_seconds == 0:
        return np.zeros(1), np.full(1, seconds + 0.1), np.zeros(1)
    step = (voice.call_seconds + voice.gap_seconds) / speed
    lap = step * voice.group + voice.pause_seconds / speed
    count = int(np.ceil((seconds + lap) / lap)) * voice.group + voice.group
    index = np.arange(count)
    starts = (
        (index % voice.group) * step + (index // voice.group) * lap - rng.uniform(0, min(lap, 0.8 * seconds))
    )
    starts = starts + rng.normal(0, 0.03 * step, count)
    lengths = np.full(count, voice.call_seconds / speed) * rng.uniform(0.92, 1.08, count)
    shifts = np.asarray(voice.melody)[(index + int(rng.integers(16))) % len(voice.melody)] + rng.normal(
        0, 0.1, count
    )
    inside = (starts < seconds - 0.05) & (starts + lengths > 0.05)
    return starts[inside], lengths[inside], shifts[inside]


def _struck(
    voice: Voice, rng: np.random.Generator, samples: int, starts: np.ndarray, shifts: np.ndarray, speed: float
) -> np.ndarray:
    """Sum of decaying partials at every start: (n,)."""
    ratio, amplitude, decay = (np.asarray(v, dtype=np.float32) for v in zip(*voice.partials, strict=True))
    length = int(min(samples, RATE * 5 * float(decay.max())))
    time = np.arange(length, dtype=np.float32) / RATE
    out = np.zeros(samples + length, np.float32)
    hits: dict[float, np.ndarray] = {}
    for start, shift in zip(starts, shifts, strict=True):
        key = round(float(shift) * 2) / 2
        if key not in hits:
            frequency = voice.pitch * speed * 2 ** (key / 12) * ratio
            kept = frequency < 0.45 * RATE
            waves = np.sin(np.float32(2 * np.pi) * frequency[kept, None] * time) * np.exp(
                -time / decay[kept, None]
            )
            hits[key] = np.einsum("p,pn->n", amplitude[kept], waves)
            burst = min(length, int(RATE * 0.012))
            hits[key][:burst] += (
                (1 - voice.harmonic + 0.1)
                * rng.standard_normal(burst, dtype=np.float32)
                * np.linspace(1, 0, burst, dtype=np.float32)
            )
        at = int(start * RATE)
        hit = hits[key][max(0, -at) :] * np.float32(rng.uniform(0.7, 1.0))
        out[max(0, at) : max(0, at) + len(hit)] += hit
    return out[:samples]


def _sustained(
    voice: Voice,
    rng: np.random.Generator,
    samples: int,
    starts: np.ndarray,
    lengths: np.ndarray,
    shifts: np.ndarray,
    speed: float,
    pitch: float,
) -> np.ndarray:
    """Pitched wave and noise through moving resonances, gated by the calls: (n,)."""
    time = np.arange(0, samples + _CONTROL + 1, _CONTROL, dtype=np.float32) / RATE  # (n / 16 + 2,)
    call = np.clip(np.searchsorted(starts, time) - 1, 0, len(starts) - 1)
    first, length = starts.astype(np.float32)[call], lengths.astype(np.float32)[call]
    inside = np.clip((time - first) / length, 0, 1)
    gate = _envelope(voice, inside, length) * np.exp(voice.shimmer * _wander(rng, len(time)))
    semitones = np.interp(inside, np.linspace(0, 1, len(voice.contour)), voice.contour) + shifts[call]
    semitones += voice.roughness * _wander(rng, len(time))
    phase = float(rng.uniform(0, 2 * np.pi))
    if voice.vibrato_depth > 0:
        semitones += voice.vibrato_depth * np.sin(2 * np.pi * voice.vibrato * speed * time + phase)
    if voice.tremolo_depth > 0:
        gate *= 1 - voice.tremolo_depth * (
            0.5 + 0.5 * np.sin(2 * np.pi * voice.tremolo * speed * time + phase)
        )
    frequency = np.minimum(voice.pitch * speed * pitch * np.exp2(semitones / 12), 7000)
    wave = _pitched(voice, _smooth(frequency, samples)) * np.float32(voice.harmonic)
    wave += np.float32((1 - voice.harmonic) * 1.2 + 0.02) * (rng.random(samples, dtype=np.float32) * 2 - 1)
    spectrum = np.fft.rfft(wave)
    opening = np.fft.irfft(spectrum * _response(voice, samples, 0.0, speed), samples)
    gate = _smooth(gate, samples)
    if voice.call_seconds == 0 or abs(voice.glide) < 0.1:
        return opening * gate
    closing = np.fft.irfft(spectrum * _response(voice, samples, voice.glide, speed), samples)
    return (opening + _smooth(inside, samples) * (closing - opening)) * gate


def _wander(rng: np.random.Generator, count: int) -> np.ndarray:
    """Irregular control values with a standard deviation of 1, new about every 10 ms: (count,)."""
    few = noise_line(rng, 2 * (count // 20) + 2, 0.6)
    return np.interp(np.arange(count), np.arange(len(few)) * 10.0, few)


def _smooth(control: np.ndarray, samples: int) -> np.ndarray:
    """Linear interpolation of control values to samples: (n,) float32."""
    control = control.astype(np.float32)
    share = np.arange(_CONTROL, dtype=np.float32) / _CONTROL
    return (control[:-1, None] + np.diff(control)[:, None] * share).reshape(-1)[:samples]


def _envelope(voice: Voice, inside: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Loudness over a call, from position 0 to 1 and call length in seconds: (n,)."""
    if voice.call_seconds == 0:
        return np.ones_like(inside)
    rise = np.clip(inside * length / np.float32(min(voice.attack, 0.4 * voice.call_seconds)), 0, 1)
    return rise * np.clip((1 - inside) / np.float32(max(voice.decay, 0.05)), 0, 1)


def _pitched(voice: Voice, frequency: np.ndarray) -> np.ndarray:
    """A wave with harmonics below 7.2 kHz, looked up by phase: (n,)."""
    count = int(np.clip(7200 / max(float(frequency.max()), 1.0), 1, 60))
    order = np.arange(1, count + 1)
    amplitude = order ** -float(voice.tilt) * np.where(order % 2 == 1, 1.0, voice.odd)
    spectrum = np.zeros(1025, np.complex64)
    spectrum[order] = amplitude * np.exp(1j * order**2 * 0.7)  # spread phases: no needle-sharp pulses
    table = np.fft.irfft(spectrum, 2048).astype(np.float32)
    table /= table.std() + 1e-9
    phase = np.cumsum(frequency * np.float32(2048 / RATE), dtype=np.float64)
    return table[phase.astype(np.int64) & 2047]


def _response(voice: Voice, samples: int, shift: float, speed: float) -> np.ndarray:
    """Gain of the resonances, moved by `shift` octaves, at every FFT bin: (n // 2 + 1,).

    Computed on 160 points a constant ratio apart (30 Hz to 8 kHz) and read off between them.
    """
    grid = np.linspace(np.log2(30.0), np.log2(8000.0), 160).astype(np.float32)
    octave = grid - np.float32(shift) - np.float32(np.log2(speed))
    gain = np.full_like(octave, 0.08)
    for centre, width, height in voice.formants:
        distance = (octave - np.float32(np.log2(centre))) / np.float32(width)
        gain += np.float32(height) * np.exp(-0.5 * distance * distance)
    body = noise_line(np.random.default_rng(voice.body_seed), 256, 0.7)[:160]
    gain *= 10 ** (np.float32(voice.body_db / 20) * body)
    gain /= 1 + (np.exp2(grid) / np.float32(voice.cutoff)) ** 8
    return np.interp(_bins(samples), grid, gain).astype(np.float32)


def _bins(samples: int) -> np.ndarray:
    """Octaves of the FFT bins: (n // 2 + 1,)."""
    return np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 30.0))
