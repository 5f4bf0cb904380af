//! Tests of the published example key.

use sha2::{Digest, Sha256};

use super::*;

#[test]
fn the_published_key_is_refused() {
    let published = Sha256::digest("example-key-change-me");
    let published = data_encoding::HEXLOWER.encode(&published);
    for (hash, is_published) in [
        (published.clone(), true),
        (published.to_uppercase(), true),
        ("1".repeat(64), false),
    ] {
        let text = format!(
            "engine = \"embedded\"\n[services.a]\napp = \"A\"\n\
             api_keys = [{{ id = \"k0\", sha256 = \"{zeros}\" }}, {{ id = \"k1\", sha256 = \"{hash}\" }}]",
            zeros = "0".repeat(64)
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = Config::read_under(file.path(), std::iter::empty()).unwrap();
        let refused = config.refuse_published_key().err().map(|error| error.key);
        let key = is_published.then(|| "services.a.api_keys[1].sha256".to_owned());
        assert_eq!(refused, key, "{hash}");
    }
}
