//! A file of an earlier build: what is open in it stays open.

use tempfile::TempDir;
use watchword_core::CheckVerdict;
use watchword_storage::Sqlite;
use watchword_verifier::store::{MIGRATIONS, SqliteVerifications};

use crate::scene::{NOW, RIGHT, WRONG, check, opened, order, verdict};

#[tokio::test]
async fn a_verification_outlives_each_change_of_the_schema() {
    let folder = TempDir::with_prefix("watchword-verifier-").unwrap();
    let path = folder.path().join("state.db");
    for age in 1..=MIGRATIONS.len() {
        let number = u64::try_from(age).unwrap();
        let older = Sqlite::open(&path, &MIGRATIONS[..age]).unwrap();
        let store = SqliteVerifications::new(older.clone());
        let id = opened(&store, order(number, 1)).await.id;
        let wrong = check(&id, WRONG, "wrong", NOW);
        assert_eq!(verdict(&store, wrong).await, CheckVerdict::Wrong);
        drop(store);
        older.close().await;

        let newer = Sqlite::open(&path, &MIGRATIONS).unwrap();
        let store = SqliteVerifications::new(newer.clone());
        let right = check(&id, RIGHT, "right", NOW);
        assert_eq!(verdict(&store, right).await, CheckVerdict::Approved);
        drop(store);
        newer.close().await;
    }
}
