"""What a fitted device says of further rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from morphax._lazy import np
from morphax.experiments.tables._data import features_in
from morphax.experiments.tables.fit import MODEL
from morphax.files import write_text
from morphax.lab.errors import UsageError


def predict_table(folder: Path, data: Path, out: Path) -> str:
    """Write what the device of a run of `tables/fit` says of every row of a CSV file, and return a sentence about it.

    Of classes also their probabilities, where it gives any.

    **Raises:** `UsageError`, in one line, where the folder holds no fitted device, and for columns that the file lacks,
    text and missing values.
    """
    from morphax.estimators.stored import rebuilt
    from morphax.saving import load

    file = folder / MODEL
    if not file.is_file():
        raise UsageError(f"dir is {str(folder)!r}, which holds no {MODEL}: morphax fit writes one")
    if out.exists() and out.samefile(data):
        raise UsageError(f"out is {str(out)!r}, the file with the rows; write to another one")
    kept = load(file)
    if not isinstance(kept, dict) or kept.keys() != {"model", "columns", "target"}:
        raise UsageError(f"{file} is no fitted device of morphax fit")
    model = rebuilt(kept["model"], str(file))
    try:
        features = features_in(data, kept["columns"])
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    said = model.predict(features)
    columns = {kept["target"]: [f"{each:.12g}" if isinstance(each, float) else str(each) for each in said.tolist()]}
    if hasattr(model, "predict_proba"):
        shares = model.predict_proba(features)
        names = [f"probability of {each}" for each in model.classes_]
        columns |= {name: [f"{share:.6g}" for share in row] for name, row in zip(names, shares.T, strict=True)}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    write_text(out, text.getvalue())
    return f"{len(said)} rows, {np.shape(features)[1]} columns each. Written to {out}"
