//! The configurations that may have the published example key.

use super::*;

fn config(http: &str, admin: &str, hash: &str) -> Config {
    let text = format!(
        "engine = \"embedded\"\nhttp = {{ listen = \"{http}\" }}\nadmin = {{ listen = \"{admin}\" }}\n\
         [services.a]\napp = \"A\"\napi_keys = [{{ id = \"k0\", sha256 = \"{zeros}\" }}, {{ id = \"k1\", sha256 = \"{hash}\" }}]",
        zeros = "0".repeat(64)
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::read_under(file.path(), std::iter::empty()).unwrap()
}

#[test]
fn the_example_key_is_let_through_on_loopback_only() {
    let key = "services.a.api_keys[1].sha256";
    for (http, admin, is_local) in [
        ("127.0.0.1:8080", "127.0.0.1:9090", true),
        ("[::1]:8080", "127.8.9.1:9090", true),
        ("[::ffff:127.0.0.1]:8080", "127.0.0.1:9090", true),
        ("0.0.0.0:8080", "127.0.0.1:9090", false),
        ("127.0.0.1:8080", "0.0.0.0:9090", false),
        ("127.0.0.1:8080", "[::]:9090", false),
        ("10.0.0.1:8080", "127.0.0.1:9090", false),
    ] {
        for hash in [EXAMPLE_KEY.to_owned(), EXAMPLE_KEY.to_uppercase()] {
            let found = config(http, admin, &hash).example_key();
            if is_local {
                assert_eq!(found, Ok(Some(key.to_owned())), "{http} {admin}");
            } else {
                assert_eq!(found.unwrap_err().key, key, "{http} {admin}");
            }
        }
        let other = config(http, admin, &"1".repeat(64)).example_key();
        assert_eq!(other, Ok(None), "{http} {admin}");
    }
}

#[test]
fn the_hash_is_that_of_the_key_in_the_samples() {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest("example-key-change-me");
    let byte = |at| u8::from_str_radix(&EXAMPLE_KEY[at..at + 2], 16).unwrap();
    let bytes: Vec<_> = (0..EXAMPLE_KEY.len()).step_by(2).map(byte).collect();
    assert_eq!(bytes, hash.to_vec());
}
