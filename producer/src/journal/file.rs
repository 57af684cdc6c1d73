//! A journal's file: opened under a lock, read, appended to, and written anew beside itself.
//!
//! The lock is on a file of its own, `<path>.lock`, which stays: the journal's own file is replaced
//! by a rename, and a lock on what was replaced would hold nobody off.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{journal_error::JournalError, recovery::Strange};

/// The file, and the lock on it.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    _lock: File,
}

/// For this user alone.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// A file from before, which may have another mode.
#[cfg(unix)]
fn make_private(file: &File) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_: &File) -> io::Result<()> {
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

impl JournalFile {
    /// Locks a journal and reads all of it; nothing where there is none yet.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<u8>), JournalError> {
        let io = |cause| JournalError::Io { path: path.to_owned(), cause };
        let mut options = OpenOptions::new();
        let lock = private(options.write(true).create(true)).open(beside(path, ".lock"));
        let lock = lock.map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::InUse { path: path.to_owned() },
            TryLockError::Error(cause) => io(cause),
        })?;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        Ok((Self { path: path.to_owned(), file: None, length: 0, _lock: lock }, bytes))
    }

    /// Its length, in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Appends.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Brings it to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Writes it anew, on disk before it takes the old one's place.
    pub(super) fn replace(
        &mut self,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut options = OpenOptions::new();
        let mut file = private(options.append(true).create(true)).open(&new)?;
        // One that an earlier crash left.
        file.set_len(0)?;
        make_private(&file)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.length = file.metadata()?.len();
        self.file = Some(file);
        sync_folder(&self.path)
    }

    /// Makes every write fail until the file is written anew.
    #[cfg(test)]
    pub(super) fn break_off(&mut self) {
        self.file = File::open(&self.path).ok();
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, cause: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), cause }
    }

    pub(super) fn strange(&self, strange: Strange) -> JournalError {
        let path = self.path.clone();
        match strange {
            Strange::NotAJournal => JournalError::NotAJournal { path },
            Strange::OtherOwner { database, origin } => {
                JournalError::OtherOwner { path, database, origin }
            }
            Strange::Unreadable(reason) => JournalError::Unreadable { path, reason },
        }
    }
}

/// A rename is on disk when its folder is.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
