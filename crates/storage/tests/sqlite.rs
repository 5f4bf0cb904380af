//! The SQLite file.
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
use watchword_storage::{Migration, Sqlite, StorageError};

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
    // Pages may not grow: SQLITE_FULL, as on a full disk.
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
