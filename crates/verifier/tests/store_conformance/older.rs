//! A file of an earlier build: verifications that are open in it stay open.

use tempfile::TempDir;
use watchword_core::CheckVerdict;
use watchword_storage::Sqlite;
use watchword_verifier::store::MIGRATIONS;

use crate::engine::start;
use crate::scene::{NOW, RIGHT, WRONG, check, opened, order, verdict};

#[tokio::test]
async fn a_verification_outlives_each_change_of_the_schema() {
    let folder = TempDir::with_prefix("watchword-verifier-").unwrap();
    let path = folder.path().join("state.db");
    for age in 1..=MIGRATIONS.len() {
        let number = u64::try_from(age).unwrap();
        // The layout of that age. The clock table is added for the current code to run; a build
        // without it wrote no epoch.
        let mut tables = MIGRATIONS[..age].to_vec();
        if age < MIGRATIONS.len() {
            tables.push(*MIGRATIONS.last().unwrap());
        }
        let older = Sqlite::open(&path, &tables).unwrap();
        let store = start(&older).await;
        let id = opened(&store, order(number, 1)).await.id;
        let wrong = check(&id, WRONG, "wrong", NOW);
        assert_eq!(verdict(&store, wrong).await, CheckVerdict::Wrong);
        let without_epoch =
            "UPDATE verifier_verification SET record = json_remove(record, '$.epoch')";
        let changed = older.write(|file| file.execute(without_epoch, []));
        assert!(changed.await.unwrap() > 0);
        drop(store);
        older.close().await;

        let newer = Sqlite::open(&path, &MIGRATIONS).unwrap();
        let store = start(&newer).await;
        let right = check(&id, RIGHT, "right", NOW);
        assert_eq!(verdict(&store, right).await, CheckVerdict::Approved);
        drop(store);
        newer.close().await;
    }
}
