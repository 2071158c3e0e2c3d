"""The weights manifest: what each learned analyzer loads, where it is published, and what the file must be.

A row is a name (the folder under CLIPGRAPH_WEIGHTS or the cache), a hub repository at a pinned revision, its files, the
licence of the weights, and the memory they take once loaded.

Sizes and hashes were written on a machine without the hub: each is what public repositories that pin the same revision
say of it, never guessed. A comment over each row says how many projects were seen to agree, and what is not known. A size or hash that is None, and a revision that is "main", are resolved by `clipgraph weights pull` once and kept
in the record beside the files (deployments/weights/record.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file of a repository. `path` is relative to the repository and to the local folder."""

    path: str
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """One row. `used_by`: analyzers that load it. `memory_mib`: resident size of the weights as loaded by default."""

    name: str
    hub_id: str
    revision: str
    files: tuple[WeightFile, ...]
    licence: str
    memory_mib: int
    used_by: tuple[str, ...]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which can never mean other files later."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")

    @property
    def size_bytes(self) -> int | None:
        """Of all files together; None while one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def _files(*paths: str) -> tuple[WeightFile, ...]:
    return tuple(WeightFile(path) for path in paths)


ROWS = (
    # Revision: eight projects. Hashes of the shards: three; their sizes: one of these. The small files are not known.
    Weights(
        "blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b", "59a1ef6c1e5117b3f65523d1c6066825bcf315e3",
        (
            *_files("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
                    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors.index.json"),
            WeightFile("model-00001-of-00002.safetensors", 9_996_328_120,
                       "b81228c9ac1b3dee1731ee71d51fe3b2c34f915019c44c25a793b51300ae24fc"),
            WeightFile("model-00002-of-00002.safetensors", 4_982_879_016,
                       "536bd73b8f1de7d94f503b23fea2eaa4f7f3ea5f74f8f874fcb21d6df1555a19"),
        ),
        "MIT", 7500, ("blip2",),
    ),
    # The branch main (3d74acf9) has no safetensors, only a pickle; this is the conversion commit at refs/pr/15 of the same
    # repository. Revision: four projects. Weights: hash from two, size from one, and both from two more for other commits of that
    # conversion. Tokenizer: two. Configurations: one, with the hashes they have at main, where their sizes are from.
    # tokenizer_config.json is not known.
    Weights(
        "clip-vit-base-patch32", "openai/clip-vit-base-patch32", "b33cedfd0df4e43b8238760678fcc89e1a0d38b3",
        (
            WeightFile("config.json", 4_186, "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770"),
            WeightFile("preprocessor_config.json", 316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd"),
            WeightFile("tokenizer.json", 2_224_041, "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"),
            WeightFile("tokenizer_config.json"),
            WeightFile("model.safetensors", 605_157_884, "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d"),
        ),
        "MIT", 600, ("composition_analysis", "product_detection"),
    ),
    # Revision and hash of the weights: at least eight projects; their size: three. Both configurations: hashes from two,
    # sizes from one of them.
    Weights(
        "segformer-b0-ade", "nvidia/segformer-b0-finetuned-ade-512-512", "489d5cd81a0b59fab9b7ea758d3548ebe99677da",
        (
            WeightFile("config.json", 6_884, "209caa9091e4632f7c8883c11170cd08ad29af68b23c09590aa4a5befb1a2a7f"),
            WeightFile("preprocessor_config.json", 271, "8039d1d210abaa7117ad78e58cdfd6141a2ec72c03dae891b3cd76737e422c6c"),
            WeightFile("model.safetensors", 15_036_944, "6ae39addd01de6b1b8bde2cf677d43a5cd733424b8d186de3f95d1c51fee23f9"),
        ),
        "NVIDIA Source Code License", 15, ("background_segmentation",),
    ),
    # Revision and hash of the weights: at least nine projects; their size: five. Sizes of both configurations: one.
    Weights(
        "ast-audioset", "MIT/ast-finetuned-audioset-10-10-0.4593", "f826b80d28226b62986cc218e5cec390b1096902",
        (
            WeightFile("config.json", 26_763),
            WeightFile("preprocessor_config.json", 297),
            WeightFile("model.safetensors", 346_404_948, "ae0c1e2ad4e1381d851fa9bf298ba13ebc9c5a914cdee2dbe427a6583869924d"),
        ),
        "BSD-3-Clause", 340, ("sound_effects",),
    ),
    # Revision: three projects. It has a pickle only (two), which is loaded with weights_only; its size: one. No hash
    # was found.
    Weights(
        "wav2vec2-emotion", "superb/wav2vec2-base-superb-er", "441a7599c3b22107314dcbd9166621c5c83f2cc5",
        (*_files("config.json", "preprocessor_config.json"), WeightFile("pytorch_model.bin", 378_361_105)),
        "Apache-2.0", 370, ("speech_emotion",),
    ),
    # No revision was found, nor a hash of this file at the hub.
    Weights("yolov8x", "Ultralytics/YOLOv8", "main", _files("yolov8x.pt"), "AGPL-3.0", 140, ("object_detection",)),
    # No revision was found. Hash at the hub: two projects; size of a file with this hash: one.
    Weights(
        "yolov8n", "Ultralytics/YOLOv8", "main",
        (WeightFile("yolov8n.pt", 6_534_387, "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95"),),
        "AGPL-3.0", 7, ("object_detection",),
    ),
    # Revision: at least six projects. Hash of model.bin: at least eight; its size: two. The others: one, and their sum is in a
    # second. The hub has renamed the owner to dropbox-dash and redirects; faster-whisper 1.2.1 uses this name.
    Weights(
        "faster-whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        (
            WeightFile("config.json", 2_263, "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e"),
            WeightFile("preprocessor_config.json", 340, "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711"),
            WeightFile("tokenizer.json", 2_710_337, "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd"),
            WeightFile("vocabulary.json", 1_068_114, "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1"),
            WeightFile("model.bin", 1_617_884_929, "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da"),
        ),
        "MIT", 1600, ("speech_transcription",),
    ),
)  # fmt: skip

MANIFEST: dict[str, Weights] = {row.name: row for row in ROWS}
