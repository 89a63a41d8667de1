"""Run library notebooks and keep what their examples show, so that a page is worth reading before anything is installed.

`python .ci/outputs.py [notebook ...]`, without names all of nbs/; run nbdev_clean after it (`make notebooks` does both).
What goes to stderr is left out: progress bars and warnings say something about the run, not about the example. So are
widget views, which are dead without their state, and state is never saved. A drawing keeps its marks and not the words that
Vega writes to each of them for screen readers, a third of its size: the numbers stand in a table beside it.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

LIBRARY = Path(__file__).resolve().parents[1] / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"
DRAWING = "image/svg+xml"


def kept(output: nbformat.NotebookNode) -> bool:
    "Whether an output belongs on the page."
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(LIBRARY.glob("[0-9][0-9]_*.ipynb")):
        print(path.name, flush=True)
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        NotebookClient(notebook, timeout=300, store_widget_state=False, resources={"metadata": {"path": LIBRARY}}).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if kept(output)]
                for output in cell.outputs:
                    if DRAWING in output.get("data", {}):
                        output.data[DRAWING] = re.sub(r' (?:aria-[a-z]+|role)="[^"]*"', "", output.data[DRAWING])
        nbformat.write(notebook, path)
