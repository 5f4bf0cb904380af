//! Tests of the `SQLite` store and its backups.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::pedantic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;
use watchword_storage::rusqlite::Connection;
use watchword_storage::{BackupError, Migration, Sqlite, StorageError, back_up, restore};

const TABLE: &[Migration] = &[Migration {
    name: "t-1",
    sql: "CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT",
}];
fn insert(
    n: i64,
) -> impl FnOnce(&Connection) -> watchword_storage::rusqlite::Result<()> + Send + 'static {
    move |c| c.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| ())
}
async fn total(file: &Sqlite) -> i64 {
    file.read(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get(0)))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn group_commit_reopen_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    let file = Sqlite::open(&path, TABLE).unwrap();
    for name in ["w.db", "w.db-wal", "w.db-shm", "w.db.lock"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let start = Instant::now();
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let file = file.clone();
            tokio::spawn(async move { file.write(insert(n)).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    println!("200 concurrent writes: {:?}", start.elapsed());
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let file = file.clone();
            tokio::spawn(async move {
                file.write(move |c| {
                    insert(1000 + n)(c)?;
                    if n % 10 == 0 {
                        insert(0)(c)?;
                    }
                    Ok(())
                })
                .await
            })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => {}
            Err(StorageError::Rejected(_)) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((failed, total(&file).await), (10, 290));
    let Err(StorageError::Config(text)) = Sqlite::open(&path, TABLE).map(|_| ()) else {
        panic!("a second opener was let in")
    };
    println!("second opener: {text}");
    assert!(file.read(insert(5000)).await.is_err(), "the reader writes");
    let clone = file.clone();
    file.close().await;
    assert!(matches!(
        clone.write(insert(1)).await,
        Err(StorageError::Unavailable(_))
    ));
    let file = Sqlite::open(&path, TABLE).unwrap();
    assert_eq!(total(&file).await, 290);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_opener_by_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    let _file = Sqlite::open(&path, TABLE).unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(
        Sqlite::open(&link, TABLE).map(|_| ()),
        Err(StorageError::Config(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_file_gets_mode_0600() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _file = Sqlite::open(&path, TABLE).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_rejected_and_the_thread_lives() {
    let folder = tempfile::tempdir().unwrap();
    let file = Sqlite::open(&folder.path().join("w.db"), TABLE).unwrap();
    let answer = file
        .write(|c| {
            insert(1)(c)?;
            if total_changes(c) {
                panic!("x")
            }
            Ok(())
        })
        .await;
    assert_eq!(file.write(insert(1)).await, Ok(()), "taken back");
    assert!(
        matches!(answer, Err(StorageError::Rejected(_))),
        "{answer:?}"
    );
}
fn total_changes(c: &Connection) -> bool {
    c.total_changes() > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_unavailable_for_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = Sqlite::open(&folder.path().join("w.db"), TABLE).unwrap();
    file.write(|c| c.execute_batch("CREATE TABLE b (x BLOB)"))
        .await
        .unwrap();
    // Limit the page count: writes fail with SQLITE_FULL, as on a full disk.
    file.write(|c| c.query_row("PRAGMA max_page_count = 8", [], |_| Ok(())))
        .await
        .unwrap();
    let calls: Vec<_> = (0..20)
        .map(|n: i64| {
            let file = file.clone();
            tokio::spawn(async move {
                file.write(move |c| {
                    insert(n)(c)?;
                    if n == 10 {
                        c.execute("INSERT INTO b VALUES (zeroblob(1000000))", [])?;
                    }
                    Ok(())
                })
                .await
            })
        })
        .collect();
    let mut confirmed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => confirmed += 1,
            Err(StorageError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(total(&file).await, confirmed);
    println!(
        "full: {confirmed} of 20 confirmed, healthy {}",
        file.is_healthy()
    );
    assert_eq!(file.write(insert(99)).await, Ok(()));
    assert!(file.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_moment_of_a_file_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("w.db"), folder.path().join("copy.db"));
    let file = Sqlite::open(&path, TABLE).unwrap();
    file.write(|c| {
        c.execute_batch("CREATE TABLE pair (a INTEGER, b INTEGER); INSERT INTO pair VALUES (0, 0)")
    })
    .await
    .unwrap();
    // Both columns are always equal after a commit.
    let writer = {
        let file = file.clone();
        tokio::spawn(async move {
            for n in 1..400_i64 {
                let write = file.write(move |c| {
                    c.execute("UPDATE pair SET a = ?1", [n])?;
                    insert(n)(c)?;
                    c.execute("UPDATE pair SET b = ?1", [n])
                });
                write.await.unwrap();
            }
        })
    };
    let (from, to) = (path.clone(), copy.clone());
    let copied = tokio::task::spawn_blocking(move || back_up(&from, &to));
    copied.await.unwrap().unwrap();
    writer.await.unwrap();
    let found = Connection::open(&copy).unwrap();
    let (a, b, rows): (i64, i64, i64) = found
        .query_row(
            "SELECT a, b, (SELECT count(*) FROM t) FROM pair",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!((a, a), (b, rows));
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(back_up(&path, &copy), Err(BackupError::Exists(_))));
    let nowhere = folder.path().join("nowhere/copy.db");
    assert!(matches!(
        back_up(&path, &nowhere),
        Err(BackupError::Unwritable(..))
    ));
    let missing = folder.path().join("missing.db");
    assert!(matches!(
        back_up(&missing, &nowhere),
        Err(BackupError::Unreadable(..))
    ));
    assert!(!missing.exists(), "nothing is created");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_whole_backup_is_restored_and_only_to_a_free_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = Sqlite::open(&at("w.db"), TABLE).unwrap();
    for n in 0..500 {
        file.write(insert(n)).await.unwrap();
    }
    back_up(&at("w.db"), &at("copy.db")).unwrap();
    let finish = |c: &Connection| insert(9_000)(c);
    let put_back = |from: &str, to: &str| restore(&at(from), &at(to), TABLE, finish);

    // The file is in use; later, a file or a log already exists at the target.
    let in_use = put_back("copy.db", "w.db");
    assert!(
        matches!(in_use, Err(BackupError::Storage(StorageError::Config(_)))),
        "{in_use:?}"
    );
    file.close().await;
    std::fs::write(at("x.db-wal"), "log").unwrap();
    for to in ["w.db", "x.db"] {
        let taken = put_back("copy.db", to);
        assert!(matches!(taken, Err(BackupError::Exists(_))), "{to}");
    }
    // An empty log and an index without a log do not hold data.
    std::fs::write(at("new.db-wal"), "").unwrap();
    std::fs::write(at("new.db-shm"), [7; 32_768]).unwrap();
    // Truncated, changed, not a database, of a later version, with a log beside it.
    let whole = std::fs::read(at("copy.db")).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() - 2_000..].fill(0x55);
    std::fs::write(at("short.db"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("changed.db"), changed).unwrap();
    std::fs::write(
        at("text.db"),
        "not a database, and longer than its header: ".repeat(10),
    )
    .unwrap();
    std::fs::write(at("empty.db"), "").unwrap();
    for name in ["short.db", "changed.db", "text.db", "empty.db"] {
        let refused = put_back(name, "new.db");
        assert!(
            matches!(refused, Err(BackupError::Damaged(_))),
            "{name}: {refused:?}"
        );
    }
    let later = restore(&at("copy.db"), &at("new.db"), &[], finish);
    assert!(matches!(later, Err(BackupError::Later(_))), "{later:?}");
    std::fs::write(at("short.db-wal"), "x").unwrap();
    assert!(matches!(
        put_back("short.db", "new.db"),
        Err(BackupError::InUse(_))
    ));
    let failed = restore(&at("copy.db"), &at("new.db"), TABLE, |c| insert(1)(c));
    assert!(matches!(failed, Err(BackupError::Storage(_))), "{failed:?}");
    assert!(!at("new.db").exists(), "nothing is left of a failure");

    put_back("copy.db", "new.db").unwrap();
    let mode = std::fs::metadata(at("new.db"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = Sqlite::open(&at("new.db"), TABLE).unwrap();
    assert_eq!(total(&file).await, 501);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    let left = names.into_iter().filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".tmp")
    });
    assert_eq!(left.count(), 0, "no half of a file is left");
}
