"What a chart is made of, read from its dictionary."


def parts(spec: dict) -> list[dict]:
    "The layers and panels of a chart."
    return [part for name in ("layer", "vconcat", "hconcat", "concat") for part in spec.get(name, [])]


def marks(spec: dict) -> list[str]:
    "Every mark type of a chart, layers and panels included."
    here = [spec["mark"]["type"] if isinstance(spec["mark"], dict) else spec["mark"]] if "mark" in spec else []
    return here + [mark for part in parts(spec) for mark in marks(part)]


def rows(spec: dict) -> list[dict]:
    "Every inlined row."
    return [row for dataset in spec["datasets"].values() for row in dataset]


def encodings(spec: dict) -> list[dict]:
    "Every encoding with a field; the far end of a range takes its type from the near one."
    here = [e for name, e in spec.get("encoding", {}).items() if isinstance(e, dict) and "field" in e and name not in ("x2", "y2")]
    return here + [e for part in parts(spec) for e in encodings(part)]


def png_size(data: bytes) -> tuple[int, int]:
    "Width and height in the header of a PNG."
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
