//! Rows: JSON values by key in named tables, in one embedded database.
//!
//! JSON, because a row must be readable by a later version that knows more fields, and by a person.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::DatabaseFile;
use crate::reserve::Reserve;
use crate::{Result, StoreError};

/// A table. The crate whose rows are in it declares it as a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    name: &'static str,
}

impl Table {
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }

    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name)
    }

    fn decode<T: DeserializeOwned>(self, key: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|source| StoreError::Row { table: self.name, key: key.into(), source })
    }
}

/// The database. It is opened again after the disk has failed it, as it refuses all work from then on: a disk that was
/// full has room again some day. What was not durable by then is lost, as in a crash.
#[derive(Debug)]
pub(crate) struct Rows {
    path: PathBuf,
    reserve: Arc<Reserve>,
    open: RwLock<Arc<Open>>,
}

#[derive(Debug)]
struct Open {
    database: Database,
    failed: Arc<AtomicBool>,
}

impl Open {
    fn new(path: &Path, reserve: &Arc<Reserve>) -> Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = options.map_err(StoreError::file("open", path))?;
        begin_anew(&file).map_err(StoreError::file("begin", path))?;
        let failed = Arc::new(AtomicBool::new(false));
        let database = Database::builder()
            .create_with_backend(DatabaseFile::new(file, failed.clone(), reserve.clone()))
            .map_err(|e| StoreError::database("be opened", e))?;
        Ok(Self { database, failed })
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// Empties a file whose making was cut off: the database's mark, the first nine bytes, is written when all else is on the disk,
/// and a file without it is refused.
fn begin_anew(file: &File) -> io::Result<()> {
    let mut mark = [0; 9];
    let length = file.metadata()?.len();
    if length > 0 {
        file.read_exact_at(&mut mark[..usize::try_from(length.min(9)).unwrap_or(9)], 0)?;
        if mark == [0; 9] {
            file.set_len(0)?;
        }
    }
    Ok(())
}

impl Rows {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reserve = Arc::new(Reserve::new(path.with_extension("reserve")));
        let open = RwLock::new(Arc::new(Open::new(path, &reserve)?));
        let rows = Self { path: path.to_owned(), reserve, open };
        rows.has_reserve();
        Ok(rows)
    }

    /// As [`Self::open`], with a look at each of its pages; whether that has repaired something.
    pub(crate) fn open_checked(path: &Path) -> Result<(Self, bool)> {
        let damaged = |source: redb::Error| StoreError::Damaged { path: path.to_owned(), source: Box::new(source) };
        let reserve = Arc::new(Reserve::new(path.with_extension("reserve")));
        let mut open = Open::new(path, &reserve).map_err(|error| match error {
            // What the disk says; all else, and invalid data, is said by what is in the file.
            StoreError::Database { source, .. }
                if matches!(&*source, redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData) =>
            {
                StoreError::Database { action: "be opened", source }
            }
            StoreError::Database { source, .. } => damaged(*source),
            other => other,
        })?;
        let whole = open.database.check_integrity().map_err(|error| damaged(error.into()))?;
        Ok((Self { path: path.to_owned(), reserve, open: RwLock::new(Arc::new(open)) }, !whole))
    }

    /// Whether there is room for the database to grow, come what may.
    fn has_reserve(&self) -> bool {
        !self.reserve.is_lent() || self.reserve.restore(self.path.metadata().map_or(0, |file| file.len()))
    }

    /// The open database. Whoever still has the one before it can only fail: its file does nothing any more.
    fn current(&self) -> Result<Arc<Open>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !open.has_failed() {
            return Ok(open);
        }
        let mut place = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if place.has_failed() {
            *place = Arc::new(Open::new(&self.path, &self.reserve)?);
        }
        Ok(place.clone())
    }

    pub(crate) fn read<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&ReadTx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let open = self.current()?;
        let tx = open.database.begin_read().map_err(|e| StoreError::database("be read", e))?;
        f(&ReadTx { tx })
    }

    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&WriteTx) -> std::result::Result<T, E>,
        durable: bool,
    ) -> std::result::Result<T, E> {
        let open = self.current()?;
        let mut tx = open.database.begin_write().map_err(|e| StoreError::database("be changed", e))?;
        let durability = if durable { Durability::Immediate } else { Durability::None };
        tx.set_durability(durability).map_err(|e| StoreError::database("be changed", e))?;
        let short = (!self.has_reserve()).then(|| self.path.clone());
        let tx = WriteTx { tx, short };
        // An error drops the transaction, which undoes it.
        let value = f(&tx)?;
        tx.tx.commit().map_err(|e| StoreError::database("be changed", e))?;
        Ok(value)
    }
}

/// Rows as they were when the reading began.
pub struct ReadTx {
    tx: redb::ReadTransaction,
}

impl fmt::Debug for ReadTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadTx")
    }
}

impl ReadTx {
    /// The row `key`, if there is one.
    ///
    /// # Errors
    /// When it is not of the type.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>> {
        match self.tx.open_table(table.definition()) {
            // A table comes to be with its first row.
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::database("be read", error)),
            Ok(open) => get(&open, table, key),
        }
    }

    /// All rows, by key.
    ///
    /// # Errors
    /// When one is not of the type.
    pub fn list<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        self.list_prefix(table, "")
    }

    /// The rows whose keys begin with `prefix`, by key.
    ///
    /// # Errors
    /// When one is not of the type.
    pub fn list_prefix<T: DeserializeOwned>(&self, table: Table, prefix: &str) -> Result<Vec<(String, T)>> {
        match self.tx.open_table(table.definition()) {
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(StoreError::database("be read", error)),
            Ok(open) => list(&open, table, prefix),
        }
    }
}

/// A change that is being made; it sees what it has written.
pub struct WriteTx {
    tx: redb::WriteTransaction,
    /// The file that there is no room for. Rows may then change and go, but none may come: going needs room as well.
    short: Option<PathBuf>,
}

impl fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTx")
    }
}

impl WriteTx {
    /// As [`ReadTx::get`].
    ///
    /// # Errors
    /// When the row is not of the type.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>> {
        get(&self.open(table)?, table, key)
    }

    /// As [`ReadTx::list`].
    ///
    /// # Errors
    /// When a row is not of the type.
    pub fn list<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        self.list_prefix(table, "")
    }

    /// As [`ReadTx::list_prefix`].
    ///
    /// # Errors
    /// When a row is not of the type.
    pub fn list_prefix<T: DeserializeOwned>(&self, table: Table, prefix: &str) -> Result<Vec<(String, T)>> {
        list(&self.open(table)?, table, prefix)
    }

    /// Writes the row `key`, over one that is there.
    ///
    /// # Errors
    /// When the value has no JSON form, or the disk fails; `Full` when it is full and the row is new.
    pub fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Row {
            table: table.name,
            key: key.into(),
            source,
        })?;
        let mut open = self.open(table)?;
        if let Some(path) = &self.short
            && open.get(key).map_err(|e| StoreError::database("be read", e))?.is_none()
        {
            return Err(StoreError::Full { path: path.clone(), needed: bytes.len() as u64 });
        }
        open.insert(key, bytes.as_slice()).map(drop).map_err(|e| StoreError::database("be changed", e))
    }

    /// Deletes the row `key`, and tells whether there was one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn delete(&self, table: Table, key: &str) -> Result<bool> {
        let mut open = self.open(table)?;
        open.remove(key).map(|old| old.is_some()).map_err(|e| StoreError::database("be changed", e))
    }

    fn open(&self, table: Table) -> Result<redb::Table<'_, &'static str, &'static [u8]>> {
        self.tx.open_table(table.definition()).map_err(|e| StoreError::database("be changed", e))
    }
}

fn get<T: DeserializeOwned>(
    open: &impl ReadableTable<&'static str, &'static [u8]>,
    table: Table,
    key: &str,
) -> Result<Option<T>> {
    let row = open.get(key).map_err(|e| StoreError::database("be read", e))?;
    row.map(|row| table.decode(key, row.value())).transpose()
}

fn list<T: DeserializeOwned>(
    open: &impl ReadableTable<&'static str, &'static [u8]>,
    table: Table,
    prefix: &str,
) -> Result<Vec<(String, T)>> {
    let mut rows = Vec::new();
    for row in open.range(prefix..).map_err(|e| StoreError::database("be read", e))? {
        let (key, value) = row.map_err(|e| StoreError::database("be read", e))?;
        if !key.value().starts_with(prefix) {
            break;
        }
        rows.push((key.value().to_owned(), table.decode(key.value(), value.value())?));
    }
    Ok(rows)
}
