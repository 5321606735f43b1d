//! Several files, one over the other.

use std::{
    fs, io, mem,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Part;
use crate::Failure;

/// Why a file is no TOML.
pub(super) struct Broken {
    pub(super) message: String,
    pub(super) at: Option<Range<usize>>,
}

/// The files that lie over the one at `path`, in their order.
pub(super) fn beside(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let directory = path.with_extension("d");
    let failed = |error: io::Error| Failure::io(directory.display(), &error);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths: io::Result<Vec<_>> = entries.map(|it| it.map(|it| it.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|it| it.extension().is_some_and(|it| it == "toml"));
    paths.sort_unstable();
    Ok(paths)
}

/// What the files say together. Every place in it counts from the start of the first file.
///
/// # Errors
/// That of the first file that is no TOML.
pub(super) fn merged(parts: &[Part]) -> Result<Spanned<DeTable<'_>>, Broken> {
    let mut whole = Spanned::new(0..0, DeTable::new());
    for part in parts {
        let table = DeTable::parse(&part.text).map_err(|error| Broken {
            message: error.message().to_owned(),
            at: error.span().map(|it| shift(&it, part.start)),
        })?;
        let table = shifted_table(table.into_inner(), part.start);
        merge(whole.get_mut(), table);
    }
    Ok(whole)
}

fn shift(span: &Range<usize>, start: usize) -> Range<usize> {
    span.start + start..span.end + start
}

fn shifted_table(table: DeTable<'_>, start: usize) -> DeTable<'_> {
    let entries = table.into_iter().map(|(key, value)| {
        let key = Spanned::new(shift(&key.span(), start), key.into_inner());
        (key, shifted(value, start))
    });
    entries.collect()
}

fn shifted(mut value: Spanned<DeValue<'_>>, start: usize) -> Spanned<DeValue<'_>> {
    let span = shift(&value.span(), start);
    match value.get_mut() {
        DeValue::Table(table) => *table = shifted_table(mem::take(table), start),
        DeValue::Array(array) => {
            for element in array.iter_mut() {
                let taken = mem::replace(element, Spanned::new(0..0, DeValue::Boolean(false)));
                *element = shifted(taken, start);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
    Spanned::new(span, value.into_inner())
}

/// Tables become one; everything else is replaced, with its key: that is where it stands.
fn merge<'a>(below: &mut DeTable<'a>, above: DeTable<'a>) {
    for (key, value) in above {
        match below.remove_entry(&key) {
            Some((old, mut table)) if table.get_ref().is_table() && value.get_ref().is_table() => {
                if let (DeValue::Table(below), DeValue::Table(above)) =
                    (table.get_mut(), value.into_inner())
                {
                    merge(below, above);
                }
                below.insert(old, table);
            }
            Some(_) | None => {
                below.insert(key, value);
            }
        }
    }
}

/// Calls `each` with every key whose value is no table, as a path with dots, and the place of the
/// value.
pub(super) fn leaves(table: &DeTable<'_>, above: &str, each: &mut impl FnMut(String, usize)) {
    for (key, value) in table {
        let path = format!("{above}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(table) => leaves(table, &format!("{path}."), each),
            DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => each(path, value.span().start),
        }
    }
}
