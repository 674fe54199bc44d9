//! Rows of a Parquet file: one column of ids, one of vectors, the others become metadata.

use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_json::LineDelimitedWriter;
use arrow_schema::DataType;

use super::rows::{Position, Row, RowEncoder, Rows, Total};
use super::{Input, LoadError};

/// Rows decoded at once.
const BATCH: usize = 256;

pub(super) struct Parquet {
    reader: ParquetRecordBatchReader,
    encoder: RowEncoder,
    path: PathBuf,
    id: usize,
    vector: usize,
    batch: Option<Batch>,
    row: u64,
    total: u64,
}

/// A batch with its metadata already written as JSON.
struct Batch {
    ids: ArrayRef,
    vectors: ArrayRef,
    metadata: Vec<String>,
    at: usize,
}

impl Parquet {
    pub(super) fn open(input: &Input, encoder: RowEncoder, from: Position) -> Result<Self, LoadError> {
        let path = input.file.clone();
        let refuse = |e: ::parquet::errors::ParquetError| LoadError::file(&path, e.to_string());
        let file = File::open(&path).map_err(LoadError::io(&path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refuse)?;
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let names: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
        let find = |name: &str, flag: &str| {
            names.iter().position(|n| n == name).ok_or_else(|| {
                let columns = names.join(", ");
                LoadError::file(
                    &path,
                    format!("there is no column {name:?}; give {flag}; columns: {columns}"),
                )
            })
        };
        let id = find(&input.id_column, "--id-column")?;
        let vector = find(&input.vector_column, "--vector-column")?;
        check_types(
            &path,
            builder.schema().field(id).data_type(),
            builder.schema().field(vector).data_type(),
        )?;
        let skip = usize::try_from(from.rows).unwrap_or(usize::MAX);
        let reader = builder.with_batch_size(BATCH).with_offset(skip).build().map_err(refuse)?;
        Ok(Self { reader, encoder, path, id, vector, batch: None, row: from.rows, total })
    }

    fn read_batch(&mut self) -> Result<Option<Batch>, LoadError> {
        let refuse = |e: arrow_schema::ArrowError| LoadError::file(&self.path, e.to_string());
        let Some(batch) = self.reader.next().transpose().map_err(refuse)? else { return Ok(None) };
        let others: Vec<usize> =
            (0..batch.num_columns()).filter(|i| *i != self.id && *i != self.vector).collect();
        let metadata = if others.is_empty() {
            vec!["{}".to_owned(); batch.num_rows()]
        } else {
            json_rows(&batch.project(&others).map_err(refuse)?).map_err(refuse)?
        };
        let (ids, vectors) = (batch.column(self.id).clone(), batch.column(self.vector).clone());
        Ok(Some(Batch { ids, vectors, metadata, at: 0 }))
    }
}

fn check_types(path: &Path, id: &DataType, vector: &DataType) -> Result<(), LoadError> {
    let text = matches!(id, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if !text && !id.is_integer() {
        return Err(LoadError::file(path, format!("the column of ids is {id}, not text or integers")));
    }
    let item = match vector {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => f.data_type(),
        other => other,
    };
    let list = !std::ptr::eq(item, vector);
    if !list || !matches!(item, DataType::Float16 | DataType::Float32 | DataType::Float64) {
        return Err(LoadError::file(
            path,
            format!("the column of vectors is {vector}, not a list of floats"),
        ));
    }
    Ok(())
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<String>, arrow_schema::ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    // the writer escapes newlines, so a line is a row
    Ok(String::from_utf8_lossy(&writer.into_inner()).lines().map(str::to_owned).collect())
}

/// The id of a row; integers become their decimal text.
fn id_at(ids: &ArrayRef, row: usize) -> Option<String> {
    if ids.is_null(row) {
        return None;
    }
    Some(match ids.data_type() {
        DataType::Utf8 => ids.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => ids.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => ids.as_string_view().value(row).to_owned(),
        DataType::Int8 => ids.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => ids.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => ids.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => ids.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt8 => ids.as_primitive::<UInt8Type>().value(row).to_string(),
        DataType::UInt16 => ids.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::UInt32 => ids.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => ids.as_primitive::<UInt64Type>().value(row).to_string(),
        _ => return None,
    })
}

/// The vector of a row; `None` when it is null, in whole or in part.
fn vector_at(vectors: &ArrayRef, row: usize) -> Option<Vec<f32>> {
    if vectors.is_null(row) {
        return None;
    }
    let items = match vectors.data_type() {
        DataType::List(_) => vectors.as_list::<i32>().value(row),
        DataType::LargeList(_) => vectors.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => vectors.as_fixed_size_list().value(row),
        _ => return None,
    };
    if items.null_count() > 0 {
        return None;
    }
    Some(match items.data_type() {
        DataType::Float16 => {
            items.as_primitive::<Float16Type>().values().iter().map(|h| h.to_f32()).collect()
        }
        DataType::Float32 => items.as_primitive::<Float32Type>().values().to_vec(),
        DataType::Float64 => items.as_primitive::<Float64Type>().values().iter().map(|d| *d as f32).collect(),
        _ => return None,
    })
}

impl Rows for Parquet {
    fn next(&mut self) -> Result<Option<Row>, LoadError> {
        loop {
            let Some(batch) = self.batch.as_mut().filter(|b| b.at < b.ids.len()) else {
                self.batch = self.read_batch()?;
                if self.batch.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let at = batch.at;
            batch.at += 1;
            self.row += 1;
            let message = match (id_at(&batch.ids, at), vector_at(&batch.vectors, at), batch.metadata.get(at))
            {
                (None, ..) => Err("the id is null".to_owned()),
                (_, None, _) => Err("the vector is null, or a component is".to_owned()),
                (Some(id), Some(vector), metadata) => {
                    self.encoder.row(&id, vector, metadata.map_or("{}", String::as_str))
                }
            };
            return Ok(Some(Row { end: Position { rows: self.row, bytes: 0 }, message }));
        }
    }

    fn total(&self) -> Total {
        Total::Rows(self.total)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use arrow_array::{FixedSizeListArray, Float32Array, Int64Array, ListArray, StringArray};
    use arrow_schema::{Field, Schema};

    use super::super::FileFormat;
    use super::super::rows::tests::encoder;
    use super::*;

    fn write(dir: &Path, batch: &RecordBatch) -> Input {
        let file = dir.join("a.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&file).unwrap(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        Input {
            file,
            format: Some(FileFormat::Parquet),
            id_column: "name".into(),
            vector_column: "embedding".into(),
            records: None,
            flat: false,
        }
    }

    fn sample() -> RecordBatch {
        let floats = |n: i64| Some(vec![Some(n as f32), Some(1.0)]);
        let vectors = ListArray::from_iter_primitive::<Float32Type, _, _>([floats(1), None, floats(3)]);
        RecordBatch::try_from_iter([
            ("name", Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("c")])) as ArrayRef),
            ("section", Arc::new(StringArray::from(vec![Some("we\nb"), None, Some("net")])) as ArrayRef),
            ("embedding", Arc::new(vectors) as ArrayRef),
            ("size", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn other_columns_become_metadata_and_null_vectors_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let input = write(dir.path(), &sample());
        let mut rows = input.open(encoder(2), Position::default()).unwrap();
        assert_eq!(rows.total(), Total::Rows(3));
        let first = rows.next().unwrap().unwrap();
        let value = first.message.unwrap().value.unwrap();
        assert!(String::from_utf8_lossy(&value).contains(r#"{"section":"we\nb","size":1}"#));
        assert!(rows.next().unwrap().unwrap().message.unwrap_err().contains("null"));
        assert_eq!(rows.next().unwrap().unwrap().end.rows, 3);
        assert!(rows.next().unwrap().is_none());
    }

    #[test]
    fn a_file_goes_on_from_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let input = write(dir.path(), &sample());
        let mut rows = input.open(encoder(2), Position { rows: 2, bytes: 0 }).unwrap();
        let row = rows.next().unwrap().unwrap();
        assert_eq!((row.end.rows, row.message.unwrap().key), (3, Some(b"c".to_vec())));
    }

    #[test]
    fn integer_ids_and_fixed_lists_are_read() {
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let values = Arc::new(Float32Array::from(vec![1.0, 2.0]));
        let vectors = FixedSizeListArray::try_new(Arc::clone(&item), 2, values, None).unwrap();
        let schema = Schema::new(vec![
            Field::new("name", DataType::Int64, false),
            Field::new("embedding", DataType::FixedSizeList(item, 2), false),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![-7])), Arc::new(vectors)];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut rows = write(dir.path(), &batch).open(encoder(2), Position::default()).unwrap();
        assert_eq!(rows.next().unwrap().unwrap().message.unwrap().key, Some(b"-7".to_vec()));
    }

    #[test]
    fn a_missing_column_and_a_wrong_type_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut input = write(dir.path(), &sample());
        input.vector_column = "vec".into();
        let error = input.open(encoder(2), Position::default()).err().unwrap().to_string();
        assert!(error.contains("\"vec\"") && error.contains("embedding"), "{error}");
        input.vector_column = "size".into();
        assert!(input.open(encoder(2), Position::default()).err().unwrap().to_string().contains("Int64"));
        std::fs::write(&input.file, b"PAR1 nonsense PAR1").unwrap();
        assert!(input.open(encoder(2), Position::default()).is_err());
    }
}
