"""Every notebook runs top to bottom on a run of the tests, and is committed with what it showed."""
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PICTURES = {"compare_checkpoints": 3, "concept_attention": 3, "data": 1, "inspect_checkpoint": 4}
SAYS = {"compare_checkpoints": "items that only concepts gets right", "concept_attention": "scale 14.9",
        "data": "40 records, 80 captions", "inspect_checkpoint": "parameters in all"}
MAX_BYTES = 400_000


@EACH
def test_a_notebook_runs_top_to_bottom(path, tiny_run):
    notebook = nbformat.read(path, as_version=4)
    values = {"WORKDIR": str(tiny_run), "MODELS": [f"{tiny_run}@4", str(tiny_run)],
              "SOURCE": "shapes:scenes=30,test_scenes=10"}
    set_up = next(cell for cell in notebook.cells if cell.cell_type == "code")
    set_up.source, count = re.subn(f"(?m)^({'|'.join(values)}) = .*$", lambda line: f"{line[1]} = {values[line[1]]!r}",
                                   set_up.source)
    assert count == 1, "the first cell names what is opened"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert SAYS[path.stem] in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]


@EACH
def test_a_notebook_is_committed_as_executed(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert path.stat().st_size < MAX_BYTES


@EACH
def test_a_notebook_opens_in_colab_and_names_no_place_of_the_machine_it_ran_on(path):
    """Its first cell installs the project there; what it opens is named relative to the repository."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("# In Colab") and "%pip install" in cells[0].source
    assert notebook.cells[0].cell_type == "markdown" and notebook.metadata.kernelspec.name == "python3"
    seen = "".join(str(output.get("text", "")) + str({kind: shown for kind, shown in output.get("data", {}).items()
                                                      if kind != "image/png"}) for cell in cells for output in cell.outputs)
    assert not re.search(r"(?<![\w.<])/(work|tmp|home|root|usr|content)/", seen)
