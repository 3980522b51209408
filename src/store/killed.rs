//! Takes up a kill that reached the file beside the database and not the database itself.

use std::path::Path;
use std::time::UNIX_EPOCH;

use rusqlite::Connection;

use super::error::json_at;
use super::files::kill_file;
use super::insert_request;
use crate::ports::StoreError;
use crate::types::state::Ask;
use crate::types::time::{Time, millis};

/// Asks for the kill in the database where only the file says it: whoever killed could not write
/// here, and a daemon that was started before would not know. A wish to resume that is younger than
/// the file stands: it is about to be taken up, and removes the file. One that is older must not,
/// also where an earlier kill is in force: the file is of a later one.
pub(super) fn take_up(connection: &Connection, database: &Path) -> Result<(), StoreError> {
    let metadata = match std::fs::symlink_metadata(kill_file(database)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    // What will be in force once all that was asked is taken up.
    let mut killed: bool =
        connection.query_row("SELECT killed FROM installation", [], |row| row.get(0))?;
    // A file of which the age cannot be told is taken to be the newer.
    let since = metadata
        .and_then(|file| file.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map_or(Time(i64::MAX), |since| Time(millis(since)));
    let mut statement =
        connection.prepare_cached("SELECT at, ask FROM requests WHERE done = 0 ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let at = Time(row.get(0)?);
        match json_at(row, 1)? {
            Ask::Kill => killed = true,
            Ask::ResumeAll if at > since => return Ok(()),
            Ask::ResumeAll => killed = false,
            Ask::Job { .. } => {}
        }
    }
    if killed {
        return Ok(());
    }
    let at = if since == Time(i64::MAX) {
        Time(0)
    } else {
        since
    };
    insert_request(connection, at, &Ask::Kill)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Store;
    use crate::store::{SqliteStore, append_request, set_kill_file};
    use crate::types::state::Change;

    fn asks(store: &mut SqliteStore) -> Vec<Ask> {
        let requests = store.requests().unwrap();
        requests.into_iter().map(|request| request.ask).collect()
    }

    fn written_at(database: &Path) -> Time {
        let modified = std::fs::metadata(kill_file(database)).unwrap().modified();
        Time(millis(
            modified.unwrap().duration_since(UNIX_EPOCH).unwrap(),
        ))
    }

    #[test]
    fn a_kill_file_that_appears_is_taken_up_by_whoever_runs_already() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let mut store = SqliteStore::open(&database, None, 7).unwrap();
        assert_eq!(asks(&mut store), []);
        set_kill_file(&database).unwrap();
        assert_eq!(asks(&mut store), [Ask::Kill]);
        assert_eq!(asks(&mut store), [Ask::Kill], "asked once");
        store.commit(&[Change::Killed { killed: true }]).unwrap();
        let id = store.requests().unwrap()[0].id;
        store.commit(&[Change::RequestDone { id }]).unwrap();
        assert_eq!(asks(&mut store), []);
    }

    #[test]
    fn a_wish_to_resume_counts_where_it_is_the_younger() {
        for (later, expected) in [
            (true, vec![Ask::ResumeAll]),
            (false, vec![Ask::ResumeAll, Ask::Kill]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("haggle.db");
            let mut store = SqliteStore::open(&database, None, 7).unwrap();
            set_kill_file(&database).unwrap();
            let at = Time(written_at(&database).0 + if later { 1 } else { -1 });
            append_request(&database, at, &Ask::ResumeAll).unwrap();
            assert_eq!(asks(&mut store), expected);
        }
    }

    #[test]
    fn a_kill_outlasts_an_earlier_wish_to_resume_after_an_earlier_kill() {
        for taken_up in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("haggle.db");
            let mut store = SqliteStore::open(&database, None, 7).unwrap();
            append_request(&database, Time(1), &Ask::Kill).unwrap();
            if taken_up {
                let id = store.requests().unwrap()[0].id;
                let done = Change::RequestDone { id };
                store
                    .commit(&[Change::Killed { killed: true }, done])
                    .unwrap();
            }
            append_request(&database, Time(2), &Ask::ResumeAll).unwrap();
            // The button is pressed again while the database cannot be written.
            set_kill_file(&database).unwrap();
            assert_eq!(asks(&mut store).last(), Some(&Ask::Kill), "{taken_up}");
            assert_eq!(asks(&mut store).last(), Some(&Ask::Kill), "{taken_up}");
        }
    }

    #[test]
    fn taking_a_kill_up_does_not_make_its_file_any_younger() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let mut store = SqliteStore::open(&database, None, 7).unwrap();
        set_kill_file(&database).unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(kill_file(&database))
            .unwrap();
        let then = UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        file.set_modified(then).unwrap();
        store.commit(&[Change::Killed { killed: true }]).unwrap();
        assert_eq!(written_at(&database), Time(1_000_000));
    }
}
