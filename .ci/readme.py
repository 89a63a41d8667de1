"""Write README.md from the markdown of nbs/index.ipynb. `nbdev_readme` would do it too, but only with Quarto installed."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def readme() -> str:
    "The text of README.md: the notebook's cells, image paths counted from the root instead of nbs/."
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "markdown")
    return text.replace("](images/", "](nbs/images/") + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
