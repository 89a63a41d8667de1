"Small spreadsheets for the importers' tests, written without a spreadsheet library."

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"

# as in the DADA workbook, the order of the frame columns included
MMAU_HEADER = ["video", "weather(sunny,rainy,snowy,foggy)1-4", "light(day,night)1-2", "scenes(highway,tunnel,mountain,urban,rural)1-5",
               "linear(arterials,curve,intersection,T-junction,ramp) 1-5", "type", "whether an accident occurred (1/0)",
               "abnormal start frame", "accident frame", "abnormal end frame", "total frames", "texts", "causes", "measures"]


def cell_xml(at: str, cell: object) -> str:
    "One cell: text, a number or a bool."
    if isinstance(cell, bool):
        return f'<c r="{at}" t="b"><v>{int(cell)}</v></c>'
    if isinstance(cell, (int, float)):
        return f'<c r="{at}"><v>{cell}</v></c>'
    return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(str(cell))}</t></is></c>'


def sheet_xml(rows, merged=()) -> str:
    "The rows of a sheet; None is an empty cell."
    lines = []
    for number, row in enumerate(rows, 1):
        cells = "".join(cell_xml(f"{chr(65 + index)}{number}", cell) for index, cell in enumerate(row) if cell is not None)
        lines.append(f'<row r="{number}">{cells}</row>')
    ranges = "".join(f'<mergeCell ref="{area}"/>' for area in merged)
    return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData><mergeCells>{ranges}</mergeCells></worksheet>'


def write_sheets(path: Path, sheets: dict[str, str]) -> Path:
    "A workbook of sheets, each given as XML."
    parts = {"_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'}
    names = "".join(f'<sheet name="{escape(name)}" sheetId="{number}" r:id="r{number}"/>' for number, name in enumerate(sheets, 1))
    parts["xl/workbook.xml"] = f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>'
    links = "".join(f'<Relationship Id="r{number}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{number}.xml"/>'
                    for number in range(1, len(sheets) + 1))
    parts["xl/_rels/workbook.xml.rels"] = f'<Relationships xmlns="{PACKAGE}">{links}</Relationships>'
    for number, xml in enumerate(sheets.values(), 1):
        parts[f"xl/worksheets/sheet{number}.xml"] = xml
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as book:
        for name, text in parts.items():
            book.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return path


def write_sheet(path: Path, rows, merged=()) -> Path:
    "A workbook with one sheet."
    return write_sheets(path, {"clips": sheet_xml(rows, merged)})


def mmau_row(video="001", kind=43, crash=1, frames=(30, 60, 90, 100), cause="vehicles are out of control", measure="Slow down. ", codes=(1, 1, 4, 1)):
    "One row under MMAU_HEADER."
    return [video, *codes, kind, crash, *frames, "[CLS]...[SEP]", cause, measure]
