"""Sounds of known content: (n,) float32 at 48 kHz unless told otherwise. Speech by espeak-ng, from the espeakng-loader package."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.clips.write import AUDIO_RATE

Sound = NDArray[np.float32]
ESPEAK_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS in espeak-ng's speak_lib.h
ESPEAK_RATE, ESPEAK_PITCH = 1, 3  # espeakRATE (words/min), espeakPITCH (0-100)


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    import espeakng_loader

    lib = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = lib.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise RuntimeError("espeak-ng found no voices")
    return lib, rate


@cache
def speech(words: str, voice: str = "en-us", words_per_minute: int = 150, pitch: int = 50) -> Sound:
    """The words spoken by a synthesiser. Read-only; the same array for the same words."""
    lib, rate = _espeak()
    heard: list[NDArray[np.int16]] = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def take(samples: ctypes._Pointer[ctypes.c_short], n: int, _events: int) -> int:
        if samples and n > 0:
            heard.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    callback = kind(take)
    lib.espeak_SetSynthCallback(callback)
    if lib.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice!r}")
    lib.espeak_SetParameter(ESPEAK_RATE, words_per_minute, 0)
    lib.espeak_SetParameter(ESPEAK_PITCH, pitch, 0)
    data = words.encode() + b"\0"
    lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, 1, None, None)  # 1: espeakCHARS_UTF8
    lib.espeak_Synchronize()
    import soxr

    pcm = np.concatenate(heard).astype(np.float32) / 32768
    out = np.asarray(soxr.resample(pcm, rate, AUDIO_RATE), np.float32)
    out.flags.writeable = False
    return out


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * AUDIO_RATE), np.float32)


def tone(hz: float, seconds: float, amplitude: float = 0.3) -> Sound:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE)).astype(np.float32)


def noise(seconds: float, amplitude: float = 0.1, seed: int = 0) -> Sound:
    return (amplitude * np.random.default_rng(seed).standard_normal(round(seconds * AUDIO_RATE))).astype(np.float32)


def beat(bpm: float, seconds: float, amplitude: float = 0.5, seed: int = 0) -> Sound:
    """A drum loop: a kick on every beat, a hi-hat on every off-beat."""
    out = np.zeros(round(seconds * AUDIO_RATE), np.float32)
    t = np.arange(round(0.25 * AUDIO_RATE)) / AUDIO_RATE
    kick = np.sin(2 * np.pi * (50 * t + 8 * (1 - np.exp(-t * 30)))) * np.exp(-t * 12)
    hat = np.random.default_rng(seed).standard_normal(len(t)) * np.exp(-t * 60) * 0.3
    for k in range(int(seconds * bpm / 60 * 2) + 1):
        at = round(k * 30 / bpm * AUDIO_RATE)
        hit = (hat if k % 2 else kick)[: max(0, len(out) - at)]
        out[at : at + len(hit)] += amplitude * hit.astype(np.float32)
    return out


def chords(names: tuple[tuple[float, ...], ...], seconds_each: float, amplitude: float = 0.1) -> Sound:
    """Sustained chords, each a tuple of frequencies in Hz with soft overtones."""
    parts = []
    for chord in names:
        t = np.arange(round(seconds_each * AUDIO_RATE)) / AUDIO_RATE
        envelope = np.minimum(1, np.minimum(t / 0.03, (seconds_each - t) / 0.05))
        parts.append(sum(np.sin(2 * np.pi * f * h * t) / h**1.5 for f in chord for h in (1, 2, 3)) * envelope)
    return (amplitude * np.concatenate(parts)).astype(np.float32)


def mix(length_s: float, *placed: tuple[float, Sound]) -> Sound:
    """Sounds laid over each other, each starting at its second."""
    out = np.zeros(round(length_s * AUDIO_RATE), np.float32)
    for start, sound in placed:
        at = round(start * AUDIO_RATE)
        n = min(len(sound), len(out) - at)
        out[at : at + n] += sound[:n]
    return out
