"""The counts of a parquet file's columns: those of pyarrow, where that survives the file."""

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from smalti.apps.parquetfooter import column_counts


@pytest.mark.parametrize("options", [{}, {"compression": "none", "use_dictionary": False}, {"version": "1.0"}])
def test_they_are_those_of_pyarrow(tmp_path, options):
    rows = 500
    lists = [[index] * (index % 7) for index in range(rows)]
    columns = {
        "name": [f"image {index} ü" for index in range(rows)],
        "height": arrow.array(np.arange(rows, dtype=np.int32)),
        "codes": arrow.array(lists, arrow.list_(arrow.uint16())),
        "half": [None if index % 2 else 0.5 for index in range(rows)],
        "yes": [index % 3 == 0 for index in range(rows)],
    }
    table = arrow.table(columns).replace_schema_metadata({"smalti": "{}", "more": "x" * 300})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=120, **options)
    found = parquet.ParquetFile(tmp_path / "a.parquet").metadata
    values, sizes = column_counts(tmp_path / "a.parquet")
    assert values["height"] == rows and values["codes"] == sum(max(1, len(one)) for one in lists)
    for index in range(found.num_columns):
        columns = [found.row_group(group).column(index) for group in range(found.num_row_groups)]
        name = columns[0].path_in_schema.split(".")[0]
        assert values[name] == sum(column.num_values for column in columns)
        assert sizes[name] == sum(column.total_uncompressed_size for column in columns)


def test_what_is_no_footer_is_a_value_error(tmp_path):
    parquet.write_table(arrow.table({"a": [1, 2, 3]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    footers = [b"", b"\x19", b"\x1c" * length, b"\xff" * length, b"\x19\xfc" + b"\xff" * (length - 2)]
    footers += [whole[-8 - length : -8][:cut].ljust(length, b"\xff") for cut in range(0, length, 7)]
    for footer in footers:
        tail = footer + len(footer).to_bytes(4, "little") + b"PAR1"
        (tmp_path / "b.parquet").write_bytes(b"PAR1" + b"\0" * 40 + tail)
        with pytest.raises(ValueError):
            column_counts(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(whole[-8:])
    with pytest.raises(ValueError, match="no footer"):
        column_counts(tmp_path / "c.parquet")
