"""Clips whose truth is known by construction: drawn with numpy and PIL, spoken by espeak-ng, encoded with PyAV.

`write` encodes; `draw` has pictures, text and moves; `sound` has speech, tones and beats; `sample` is the clip that
`make run` analyses. Nothing here is third-party media: photos come from scikit-image's package at run time.
"""

from tests.clips.write import write

__all__ = ["write"]
