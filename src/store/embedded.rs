//! The embedded store: one redb file in the state directory.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use super::{Note, Store, StoreError, StoredRoute};

/// The file's name inside the state directory.
const FILE: &str = "lockstep.redb";

/// Route name → JSON of a [`StoredRoute`].
const ROUTES: TableDefinition<'_, &str, &str> = TableDefinition::new("routes");

/// Route name and the note's → its text.
const NOTES: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("notes");

/// Facts about the installation: `instance`, `format`.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

/// The layout of the values in this file. A file of another layout is not read.
const FORMAT: &str = "1";

/// Page cache in bytes: the whole state is a few kilobytes.
const CACHE_BYTES: usize = 1024 * 1024;

/// What must still fit into the directory, in bytes, before a phase changes:
/// the journal lines of the writes that the new phase may bring. A route that
/// moved with a full disk under it could not say what its mirror misses.
const ROOM: usize = 64 * 1024;

/// Written and removed again to see that there is [`ROOM`].
const ROOM_FILE: &str = "room.tmp";

/// See the module.
pub struct EmbeddedStore {
    dir: PathBuf,
    /// None after an I/O error, which redb does not go on from: the next call
    /// opens the file anew.
    db: Mutex<Option<Database>>,
    instance: String,
}

impl EmbeddedStore {
    /// Opens or makes the store of a directory, and locks it to this process.
    ///
    /// # Errors
    /// Directory, lock and damage each with their own message.
    pub fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError::Directory {
            dir: dir.display().to_string(),
            error,
        })?;
        private(dir);
        let db = open_file(dir)?;
        let file = dir.join(FILE).display().to_string();
        let instance = prepare(&db, &file)?;
        Ok(EmbeddedStore {
            dir: dir.to_path_buf(),
            db: Mutex::new(Some(db)),
            instance,
        })
    }

    /// Runs `work` on the open file; closes it when that fails.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slot = self.db.lock();
        let db = match slot.take() {
            Some(db) => db,
            None => open_file(&self.dir)?,
        };
        let done = work(&db);
        if done.is_ok() {
            *slot = Some(db);
        } else {
            // Closing writes, and what failed a moment ago may fail there too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
        done
    }
}

/// The directory holds a private key and account names: for the owner only.
/// A directory that belongs to someone else stays as it is.
fn private(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o700);
    if let Err(e) = std::fs::set_permissions(dir, mode) {
        tracing::warn!("the state directory cannot be made private: {e}");
    }
}

fn open_file(dir: &Path) -> Result<Database, StoreError> {
    let path = dir.join(FILE);
    let damaged = |detail: String| StoreError::Damaged {
        file: path.display().to_string(),
        detail,
    };
    // redb is thorough about checksums, yet a damaged header can still meet an
    // assertion of its own; at start that must be a message, not an abort.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
    }))
    .map_err(|_| damaged("it cannot be opened".to_owned()))?;
    opened.map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            dir: dir.display().to_string(),
        },
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Directory {
                dir: dir.display().to_string(),
                error,
            }
        }
        other => damaged(other.to_string()),
    })
}

fn failed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(e.to_string())
}

/// Makes the tables, checks the format, and returns the instance id.
fn prepare(db: &Database, file: &str) -> Result<String, StoreError> {
    let tx = db.begin_write().map_err(failed)?;
    let instance = {
        tx.open_table(ROUTES).map_err(failed)?;
        tx.open_table(NOTES).map_err(failed)?;
        let mut meta = tx.open_table(META).map_err(failed)?;
        let get = |key: &str| -> Result<Option<String>, StoreError> {
            let value = meta.get(key).map_err(failed)?;
            Ok(value.map(|v| v.value().to_owned()))
        };
        let (format, instance) = (get("format")?, get("instance")?);
        match format.as_deref() {
            None => {
                meta.insert("format", FORMAT).map_err(failed)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                return Err(StoreError::Damaged {
                    file: file.to_owned(),
                    detail: format!("format {other}, this version reads {FORMAT}"),
                });
            }
        }
        match instance {
            Some(id) => id,
            None => {
                let id = new_instance_id()?;
                meta.insert("instance", id.as_str()).map_err(failed)?;
                id
            }
        }
    };
    tx.commit().map_err(failed)?;
    Ok(instance)
}

/// 64 random bits, in hexadecimal.
fn new_instance_id() -> Result<String, StoreError> {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed("no randomness for an instance id"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Store for EmbeddedStore {
    fn instance_id(&self) -> &str {
        &self.instance
    }

    fn room(&self) -> Result<(), StoreError> {
        let path = self.dir.join(ROOM_FILE);
        let written = File::create(&path)
            .and_then(|mut file| file.write_all(&[0; ROOM]).and_then(|()| file.sync_data()));
        let _ = std::fs::remove_file(&path);
        written.map_err(|error| StoreError::Directory {
            dir: self.dir.display().to_string(),
            error,
        })
    }

    fn load_routes(&self) -> Result<Vec<StoredRoute>, StoreError> {
        self.with(|db| {
            let tx = db.begin_read().map_err(failed)?;
            let table = tx.open_table(ROUTES).map_err(failed)?;
            let mut routes = Vec::new();
            for entry in table.iter().map_err(failed)? {
                let (name, json) = entry.map_err(failed)?;
                let route = serde_json::from_str(json.value())
                    .map_err(|e| failed(format!("route {}: {e}", name.value())))?;
                routes.push(route);
            }
            Ok(routes)
        })
    }

    fn save_route(&self, route: &StoredRoute) -> Result<(), StoreError> {
        let json = serde_json::to_string(route).map_err(failed)?;
        self.room()?;
        self.with(|db| {
            // redb's default durability: the commit returns after fsync.
            let tx = db.begin_write().map_err(failed)?;
            {
                let mut table = tx.open_table(ROUTES).map_err(failed)?;
                table
                    .insert(route.name.as_str(), json.as_str())
                    .map_err(failed)?;
            }
            tx.commit().map_err(failed)
        })
        .or_else(|e| {
            // A commit may fail after its last step but one, and be what is
            // read from then on: 1. an edge is refused for it, and the old
            // phase goes on; 2. hours later the process starts again in the
            // phase that was refused.
            let stands = |r: &StoredRoute| r == route;
            match self.load_routes() {
                Ok(all) if all.iter().any(stands) => Ok(()),
                _ => Err(e),
            }
        })
    }

    fn load_notes(&self, route: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.with(|db| {
            let tx = db.begin_read().map_err(failed)?;
            let table = tx.open_table(NOTES).map_err(failed)?;
            let mut notes = Vec::new();
            for entry in table.range((route, "")..).map_err(failed)? {
                let (key, text) = entry.map_err(failed)?;
                let (of, name) = key.value();
                if of != route {
                    break;
                }
                notes.push((name.to_owned(), text.value().to_owned()));
            }
            Ok(notes)
        })
    }

    fn save_notes(&self, route: &str, changes: &[Note]) -> Result<(), StoreError> {
        self.with(|db| {
            let tx = db.begin_write().map_err(failed)?;
            {
                let mut table = tx.open_table(NOTES).map_err(failed)?;
                for (name, text) in changes {
                    let key = (route, name.as_str());
                    match text {
                        Some(text) => table.insert(key, text.as_str()),
                        None => table.remove(key),
                    }
                    .map_err(failed)?;
                }
            }
            tx.commit().map_err(failed)
        })
    }

    fn remove_route(&self, name: &str) -> Result<(), StoreError> {
        self.with(|db| {
            let tx = db.begin_write().map_err(failed)?;
            {
                let mut table = tx.open_table(ROUTES).map_err(failed)?;
                table.remove(name).map_err(failed)?;
                let mut notes = tx.open_table(NOTES).map_err(failed)?;
                notes
                    .retain(|(route, _), _| route != name)
                    .map_err(failed)?;
            }
            tx.commit().map_err(failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Ack, DdlPolicy, DeferredPolicy, Phase, ReadsBy};
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Dir(std::path::PathBuf);
    impl Dir {
        fn new() -> Dir {
            static N: AtomicU32 = AtomicU32::new(0);
            let n = N.fetch_add(1, Ordering::Relaxed);
            Dir(std::env::temp_dir().join(format!("lockstep-store-{}-{n}", std::process::id())))
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn route(name: &str, epoch: u64) -> StoredRoute {
        StoredRoute {
            name: name.to_owned(),
            tables: vec!["shop.*".to_owned()],
            phase: Phase::TargetFirst,
            epoch,
            reads_percent: 30,
            reads_by: ReadsBy::Statement,
            ack: Ack::Active,
            deferred: DeferredPolicy::Continue,
            ddl: DdlPolicy::Refuse,
            follow: None,
        }
    }

    fn error(dir: &Path) -> StoreError {
        match EmbeddedStore::open(dir) {
            Ok(_) => panic!("opened"),
            Err(e) => e,
        }
    }

    #[test]
    fn keeps_routes_and_its_name() {
        let dir = Dir::new();
        let store = EmbeddedStore::open(&dir.0).unwrap();
        let id = store.instance_id().to_owned();
        assert_eq!(id.len(), 16);
        store.save_route(&route("a", 1)).unwrap();
        store.save_route(&route("a", 2)).unwrap();
        store.save_route(&route("b", 3)).unwrap();
        store.remove_route("b").unwrap();
        store.remove_route("b").unwrap();
        assert!(matches!(error(&dir.0), StoreError::InUse { .. }));
        drop(store);
        let store = EmbeddedStore::open(&dir.0).unwrap();
        assert_eq!(store.instance_id(), id);
        assert_eq!(store.load_routes().unwrap(), vec![route("a", 2)]);
    }

    #[test]
    fn keeps_notes_with_their_route() {
        let dir = Dir::new();
        let store = EmbeddedStore::open(&dir.0).unwrap();
        let note = |name: &str, text: &str| (name.to_owned(), Some(text.to_owned()));
        store.save_route(&route("a", 1)).unwrap();
        store
            .save_notes("a", &[note("x", "1"), note("y", "2")])
            .unwrap();
        store.save_notes("ab", &[note("x", "3")]).unwrap();
        store
            .save_notes("a", &[("x".to_owned(), None), note("z", "4")])
            .unwrap();
        drop(store);
        let store = EmbeddedStore::open(&dir.0).unwrap();
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let notes = store.load_notes("a").unwrap();
        assert_eq!(notes, [pair("y", "2"), pair("z", "4")]);
        store.remove_route("a").unwrap();
        assert_eq!(store.load_notes("a").unwrap(), []);
        assert_eq!(store.load_notes("ab").unwrap(), [pair("x", "3")]);
    }

    #[test]
    fn goes_on_after_an_error() {
        let dir = Dir::new();
        let store = EmbeddedStore::open(&dir.0).unwrap();
        store.save_route(&route("a", 1)).unwrap();
        let failed: Result<(), StoreError> = store.with(|_| Err(failed("the disk is full")));
        assert!(failed.is_err() && store.db.lock().is_none());
        assert_eq!(store.load_routes().unwrap(), vec![route("a", 1)]);
        std::fs::rename(&dir.0, dir.0.with_extension("away")).unwrap();
        let full = store.save_route(&route("a", 2));
        std::fs::rename(dir.0.with_extension("away"), &dir.0).unwrap();
        assert!(matches!(full, Err(StoreError::Directory { .. })));
        store.save_route(&route("a", 3)).unwrap();
        assert_eq!(store.load_routes().unwrap(), vec![route("a", 3)]);
    }

    #[test]
    fn damage_and_directories_are_named() {
        let dir = Dir::new();
        drop(EmbeddedStore::open(&dir.0).unwrap());
        let file = dir.0.join(FILE);
        let whole = std::fs::read(&file).unwrap();
        for broken in [vec![7u8; 5000], whole[..whole.len() / 3].to_vec()] {
            std::fs::write(&file, &broken).unwrap();
            assert!(matches!(error(&dir.0), StoreError::Damaged { .. }));
        }
        let text = error(&dir.0).to_string();
        assert!(text.contains("lockstep.redb"), "{text}");
        assert!(matches!(
            error(Path::new("/proc/none/state")),
            StoreError::Directory { .. }
        ));
    }
}
